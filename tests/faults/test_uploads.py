"""Files that come with loads: bounded, read by nobody else, and gone with their model, their server, or the next one."""

from __future__ import annotations

import base64
import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlserve import Server
from tests import graphs
from tests.conftest import STOP_LIMIT_S, eventually
from tests.raw_http import ask, head, open_socket
from tests.repositories import answer, index, load, put, unload

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer
    from tests.raw_http import HttpAnswer

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

EXPLICIT = ("--model-control-mode", "explicit", "--load-models", "kept")
LIMIT_S = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of one model."""
    repository = tmp_path / "models"
    put(repository, "kept", 1, 2)
    return repository


def sent(factor: float, size: int = 0) -> dict[str, str]:
    """The parameters of a load that brings its file."""
    return {"config": "{}", "file:1/model.onnx": base64.b64encode(graphs.times(factor, size)).decode()}


def as_body(**parameters: str) -> bytes:
    return json.dumps({"parameters": parameters}).encode()


def send(server: ServerProcess, name: str, factor: float, size: int = 0) -> HttpAnswer:
    return load(server, name, **sent(factor, size))


def files(folder: Path) -> list[Path]:
    """The model files below a folder."""
    found = []
    for path in folder.rglob("*.onnx"):
        with suppress(FileNotFoundError):
            found += [path] if path.stat().st_size else []
    return found


def test_files_go_with_their_model(start_server: StartServer, folder: Path, temporary: Path) -> None:
    server = start_server(folder, *EXPLICIT)
    assert send(server, "sent", 3).status == 200
    assert (answer(server, "sent"), len(files(temporary))) == ((3, "1"), 1)
    assert [path.stat().st_mode & 0o077 for path in temporary.iterdir()] == [0], "nobody else reads what was sent"
    assert send(server, "sent", 4).status == 200
    assert (answer(server, "sent"), len(files(temporary))) == ((4, "1"), 1), "what is replaced is deleted"
    assert send(server, "kept", 5).status == 200
    assert (answer(server, "kept"), len(files(temporary))) == ((5, "1"), 2)
    assert load(server, "sent", config="{}", **{"file:1/model.onnx": "AAAA"}).status == 400
    assert (answer(server, "sent"), len(files(temporary))) == ((4, "1"), 2), "so is what failed"
    assert unload(server, "sent").status == 200
    assert unload(server, "kept").status == 200
    assert list(temporary.iterdir()) == []
    # From the repository again.
    assert load(server, "kept").status == 200
    assert answer(server, "kept") == (2, "1")


def test_what_all_loads_bring_is_bounded(start_server: StartServer, folder: Path, temporary: Path) -> None:
    server = start_server(folder, *EXPLICIT, "--set", "limits.upload_bytes=1000000")
    size = 600_000
    assert send(server, "one", 3, size).status == 200
    refused = send(server, "two", 3, size)
    assert (refused.status, refused.headers["mlserve-code"]) == (503, "out_of_budget")
    assert "limits.upload_bytes" in refused.text
    assert send(server, "two", 3, 2 * size).headers["mlserve-code"] == "too_large"
    assert len(files(temporary)) == 1
    assert (answer(server, "one"), answer(server, "kept")) == ((3, "1"), (2, "1"))
    unload(server, "one")
    assert send(server, "two", 3, size).status == 200


@pytest.mark.parametrize("asked", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM] * 3], ids=str)
def test_files_go_with_their_server(
    start_server: StartServer, folder: Path, temporary: Path, asked: list[signal.Signals]
) -> None:
    server = start_server(folder, *EXPLICIT)
    assert send(server, "sent", 3).status == 200
    for number in asked:
        server.process.send_signal(number)
    server.process.wait(STOP_LIMIT_S)
    assert list(temporary.iterdir()) == []


def test_files_go_with_a_server_that_is_still_loading(
    start_server: StartServer, folder: Path, tmp_path: Path, temporary: Path
) -> None:
    file = tmp_path / "held"
    server = start_server(folder, *EXPLICIT, env={"FAILPOINTS": f"load block while {file}"})
    file.touch()
    body = as_body(**sent(3))
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", "/v2/repository/models/sent/load", {"content-length": str(len(body))}) + body)
        eventually(lambda: index(server).get(("sent", "1")) == ("LOADING", ""), limit_s=LIMIT_S, what="the load begins")
        assert len(files(temporary)) == 1
        for _ in range(3):
            server.process.send_signal(signal.SIGTERM)
        server.process.wait(STOP_LIMIT_S)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("way", ["stop", "with", "dropped"])
def test_files_go_with_a_server_in_a_program(folder: Path, temporary: Path, way: str) -> None:
    def bring(server: Server) -> None:
        body = as_body(**sent(3))
        assert (
            ask(server.http_url.removeprefix("http://"), "POST", "/v2/repository/models/sent/load", body).status == 200
        )
        assert len(files(temporary)) == 1

    server = Server(folder, server={"model_control_mode": "explicit", "load_models": "kept"})
    if way == "with":
        with server:
            bring(server)
    else:
        server.start()
        bring(server)
        if way == "stop":
            server.stop()
    del server
    eventually(lambda: not list(temporary.iterdir()), limit_s=LIMIT_S, what="the files are gone")


def test_the_next_server_deletes_what_a_killed_one_left(
    start_server: StartServer, folder: Path, temporary: Path
) -> None:
    killed, living = start_server(folder, *EXPLICIT), start_server(folder, *EXPLICIT)
    assert send(killed, "sent", 3).status == 200
    assert send(living, "sent", 4).status == 200
    other = temporary / "mlserve-uploads-of-somebody"
    other.mkdir()
    (other / "model.onnx").write_bytes(b"not a server's")
    killed.process.kill()
    killed.process.wait()
    assert len(files(temporary)) == 3
    following = start_server(folder, *EXPLICIT)
    eventually(lambda: len(files(temporary)) == 2, limit_s=LIMIT_S, what="what was left is deleted")
    assert (other / "model.onnx").exists()
    # What lives is loaded again from its own files.
    assert answer(living, "sent") == (4, "1")
    assert living.stop() == following.stop() == 0
    assert list(temporary.iterdir()) == [other]
