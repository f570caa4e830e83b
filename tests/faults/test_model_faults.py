"""Faults in the life of models: whatever panics or hangs there ends one load, and the server says so and serves on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask
from tests.repositories import answer, index, infer, load, put, unload

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

EXPLICIT = ("--model-control-mode", "explicit", "--load-models", "a")
POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
LIMIT_S = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    put(repository, "a", 1, 2)
    put(repository, "b", 1, 3)
    return repository


def check_alive(server: ServerProcess) -> None:
    assert answer(server, "a") == (2, "1")
    assert ask(server.http, "GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize("stage", ["load", "install"])
def test_a_load_that_panics_is_failed_and_the_next_one_goes_on(
    start_server: StartServer, folder: Path, stage: str
) -> None:
    server = start_server(folder, *EXPLICIT, env={"FAILPOINTS": f"{stage} panic @2"})
    refused = load(server, "b")
    assert (refused.status, "panicked" in refused.text) == (500, True), refused
    assert index(server)["b", "1"] == ("UNAVAILABLE", "failed to load: loading it panicked")
    assert metric(server, "mlserve_model_loads_total", model="b", outcome="failed") == 1
    assert infer(server, "b").status == 503
    check_alive(server)
    assert load(server, "b").status == 200
    assert answer(server, "b") == (3, "1")


def test_a_panic_at_the_start_fails_one_model(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, env={"FAILPOINTS": "install panic @2"})
    check_alive(server)
    assert index(server)["b", "1"] == ("UNAVAILABLE", "failed to load: loading it panicked")
    assert ask(server.metrics, "GET", "/startupz").status == 200


def test_a_drain_that_panics_ends_the_unload_all_the_same(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, *EXPLICIT, env={"FAILPOINTS": "drain panic @1"})
    load(server, "b")
    assert unload(server, "b").status == 200
    assert index(server)["b", "1"] == ("UNAVAILABLE", "unloaded")
    check_alive(server)


def test_a_look_at_the_repository_that_panics_is_not_the_last(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, *POLL, env={"FAILPOINTS": "poll panic @1"})
    eventually(lambda: "panicked" in server.log.read_text(), limit_s=LIMIT_S, what="the panic")
    put(folder, "c", 1, 4)
    eventually(lambda: infer(server, "c").status == 200, limit_s=LIMIT_S, what="the next looks")
    check_alive(server)
