"""Faults in the life of models: whatever panics or hangs there ends one load, and the server says so and serves on."""

from __future__ import annotations

import base64
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests import graphs
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


@pytest.mark.parametrize("stage", ["load", "warm_up", "install"])
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


def test_loads_that_nobody_waits_for_hold_up_nobody(start_server: StartServer, folder: Path, tmp_path: Path) -> None:
    """Forty orders of callers who left, behind a load that hangs: none of them is carried out."""
    names = [f"gone{number}" for number in range(40)]
    for name in names:
        put(folder, name, 1, 5)
    held = tmp_path / "held"
    held.touch()
    server = start_server(folder, *EXPLICIT, env={"FAILPOINTS": f"load block @2+ while {held}"})
    with Caller(server) as first:
        first.asks_to_load("b")
        eventually(lambda: index(server).get(("b", "1"), ("", ""))[0] == "LOADING", limit_s=LIMIT_S, what="it to hang")
        for name in names:
            with Caller(server) as caller:
                caller.asks_to_load(name)
        with Caller(server) as honest:
            put(folder, "honest", 1, 6)
            honest.asks_to_load("honest")
            eventually(
                lambda: metric(server, "mlserve_connections") <= 3, limit_s=LIMIT_S, what="the others to have left"
            )
            held.unlink()
            assert first.answer().startswith(b"HTTP/1.1 200")
            assert honest.answer().startswith(b"HTTP/1.1 200")
    assert {name for name, _ in index(server) if (name, "1") in index(server)} == {"a", "b", "honest"}
    check_alive(server)


def test_more_orders_than_can_wait_are_refused(start_server: StartServer, folder: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    server = start_server(folder, *EXPLICIT, env={"FAILPOINTS": f"load block @2+ while {held}"})
    callers = [Caller(server) for _ in range(66)]
    try:
        callers[0].asks_to_load("b")
        eventually(lambda: index(server).get(("b", "1"), ("", ""))[0] == "LOADING", limit_s=LIMIT_S, what="it to hang")
        for number, caller in enumerate(callers[1:]):
            caller.asks_to_load(f"nobody{number}")
        # One of them found no room. Which one is the loops' choice.
        eventually(lambda: refused(server) == 1, limit_s=LIMIT_S, what="one to be refused")
        check_alive(server)
        held.unlink()
        answers = [caller.answer() for caller in callers]
        assert sorted(answer.split()[1] for answer in answers) == [b"200", *[b"404"] * 64, b"503"]
        (full,) = (answer for answer in answers if answer.startswith(b"HTTP/1.1 503"))
        assert b"retry-after" in full.lower()
        assert b"64 orders to load or unload models wait already" in full
    finally:
        for caller in callers:
            caller.close()


def refused(server: ServerProcess) -> float:
    return metric(server, "mlserve_rejected_total", reason="queue_full")


def test_uploads_go_with_the_unload_and_with_the_server(
    start_server: StartServer, folder: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "tmp"
    kept.mkdir()
    server = start_server(folder, *EXPLICIT, "--upload-bytes", "10000", env={"TMPDIR": str(kept)})
    file = base64.b64encode(graphs.times(7)).decode()
    sent = {"config": "{}", "file:1/model.onnx": file}

    def uploads() -> int:
        return len(list(kept.glob("mlserve-upload-*")))

    assert load(server, "sent", **sent).status == 200
    assert (answer(server, "sent"), uploads()) == ((7, "1"), 1)
    large = base64.b64encode(bytes(9_900)).decode()
    full = load(server, "other", **{"config": "{}", "file:1/model.onnx": large})
    assert (full.status, "limits.upload_bytes" in full.text) == (503, True), full
    too_large = load(server, "other", **{"config": "{}", "file:1/model.onnx": base64.b64encode(bytes(10_001)).decode()})
    assert too_large.status == 413
    assert load(server, "sent", **sent).status == 200, "what is replaced is given back"
    eventually(lambda: uploads() == 1, limit_s=5, what="what was replaced to be deleted")
    assert unload(server, "sent").status == 200
    assert uploads() == 0
    assert load(server, "sent").status == 404, "its files are gone"
    broken = base64.b64encode(b"rubbish").decode()
    assert load(server, "sent", **{"config": "{}", "file:1/model.onnx": broken}).status == 400
    assert uploads() == 0, "what failed is not kept"
    assert load(server, "sent", **sent).status == 200
    server.stop()
    assert uploads() == 0


class Caller:
    """A connection that asks for something, and may leave before the answer."""

    def __init__(self, server: ServerProcess) -> None:
        """Connects."""
        host, port = server.http.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=30)

    def asks_to_load(self, name: str) -> None:
        """Sends the order."""
        head = f"POST /v2/repository/models/{name}/load HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        self._socket.sendall(head.encode())

    def answer(self) -> bytes:
        """The answer's beginning."""
        return self._socket.recv(65_536)

    def close(self) -> None:
        """Leaves for good: a reset, as a half-closed connection may still read."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def __enter__(self) -> Self:
        """Stays connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves."""
        self.close()
