"""A server that follows its repository: what comes, changes, is half there, and goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import graphs, repositories
from tests.conftest import eventually
from tests.repositories import answer, index, infer, load, put

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
# Two looks have to agree.
LIMIT_S = 15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    put(repository, "a", 1, 2)
    return repository


@pytest.fixture
def server(start_server: StartServer, folder: Path) -> ServerProcess:
    return start_server(folder, *POLL)


def test_what_comes_is_loaded_and_what_goes_is_unloaded(server: ServerProcess, folder: Path) -> None:
    assert answer(server, "a") == (2, "1")
    put(folder, "b", 1, 3)
    eventually(lambda: infer(server, "b").status == 200, limit_s=LIMIT_S, what="model b to serve")
    shutil.rmtree(folder / "b")
    eventually(lambda: infer(server, "b").status == 404, limit_s=LIMIT_S, what="model b to be gone")
    assert ("b", "1") not in index(server)
    assert answer(server, "a") == (2, "1")


def test_a_new_version_and_a_changed_file_take_over(server: ServerProcess, folder: Path) -> None:
    put(folder, "a", 2, 4)
    eventually(lambda: answer(server, "a") == (4, "2"), limit_s=LIMIT_S, what="version 2 to serve")
    put(folder, "a", 2, 5)
    eventually(lambda: answer(server, "a") == (5, "2"), limit_s=LIMIT_S, what="the changed file to serve")


def test_a_file_that_is_still_being_copied_is_left_alone(server: ServerProcess, folder: Path) -> None:
    whole = graphs.times(6, ballast=1 << 20)
    file = folder / "a" / "2" / "model.onnx"
    file.parent.mkdir()
    written = 0
    with file.open("wb") as copy:
        # A little more whenever the server has looked: it must neither load nor report what is not whole.
        for end in range(1 << 18, len(whole) + (1 << 18), 1 << 18):
            copy.write(whole[written:end])
            copy.flush()
            written = min(end, len(whole))
            assert answer(server, "a") == (2, "1")
    eventually(lambda: answer(server, "a") == (6, "2"), limit_s=LIMIT_S, what="the whole file to serve")
    assert "failed to load" not in server.log.read_text()


def test_a_damaged_version_leaves_what_serves_and_is_told_once(server: ServerProcess, folder: Path) -> None:
    repositories.damage(folder, "a", 2)
    eventually(lambda: ("a", "2") in index(server), limit_s=LIMIT_S, what="the damage to be noticed")
    eventually(lambda: index(server)["a", "2"][0] == "UNAVAILABLE", limit_s=LIMIT_S, what="the damage to be told")
    assert "no ONNX model" in index(server)["a", "2"][1]
    assert answer(server, "a") == (2, "1")
    put(folder, "b", 1, 3)
    eventually(lambda: infer(server, "b").status == 200, limit_s=LIMIT_S, what="two more looks")
    assert server.log.read_text().count("model failed to load") == 1, "not tried again without a change"
    put(folder, "a", 2, 8)
    eventually(lambda: answer(server, "a") == (8, "2"), limit_s=LIMIT_S, what="the mended file to serve")


def test_a_bad_entry_does_not_stop_the_others(server: ServerProcess, folder: Path) -> None:
    put(folder, "-bad-name", 1, 3)
    put(folder, "b", 1, 3)
    eventually(lambda: infer(server, "b").status == 200, limit_s=LIMIT_S, what="model b to serve")
    log = server.log.read_text()
    assert "'-bad-name' is no name for a model" in log


def test_what_cannot_be_served_any_more_serves_on(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "a", 2, 9)
    file = folder / "a" / "1" / "model.onnx"
    file.unlink()
    file.symlink_to(elsewhere)
    eventually(lambda: "leads outside" in server.log.read_text(), limit_s=LIMIT_S, what="the link to be told")
    put(folder, "b", 1, 3)
    eventually(lambda: infer(server, "b").status == 200, limit_s=LIMIT_S, what="two more looks")
    assert answer(server, "a") == (2, "1")


def test_an_unreadable_repository_changes_nothing(server: ServerProcess, folder: Path) -> None:
    moved = folder.rename(folder.with_name("moved"))
    eventually(lambda: "cannot be served" in server.log.read_text(), limit_s=LIMIT_S, what="it to be told")
    assert answer(server, "a") == (2, "1")
    moved.rename(folder)


def test_a_mounted_volume_is_swapped_whole(start_server: StartServer, tmp_path: Path) -> None:
    """As Kubernetes updates a volume: entries are links into a hidden folder, and one rename swaps it."""
    folder = tmp_path / "mounted"
    for number, factor in ((1, 2.0), (2, 4.0)):
        put(folder / f"..data-{number}", "a", 1, factor)
    (folder / "..data").symlink_to("..data-1")
    (folder / "a").symlink_to("..data/a")
    server = start_server(folder, *POLL)
    assert answer(server, "a") == (2, "1")
    (folder / "..next").symlink_to("..data-2")
    (folder / "..next").rename(folder / "..data")
    eventually(lambda: answer(server, "a") == (4, "1"), limit_s=LIMIT_S, what="the new volume to serve")


def test_an_empty_repository_may_fill_later(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    server = start_server(folder, *POLL)
    put(folder, "late", 1, 2)
    eventually(lambda: infer(server, "late").status == 200, limit_s=LIMIT_S, what="the model to serve")


def test_orders_are_refused_while_the_repository_is_followed(server: ServerProcess) -> None:
    assert load(server, "a").status == 503
