"""More models than there is room for: loaded when they are asked for, the least recently used go, pinned ones stay."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tritonclient.grpc as triton_grpc

from tests import graphs, slow_model
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.repositories import answer, index, infer, load, put
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

BALLAST = 1 << 20
# Room for two of them, which may go at once.
BUDGET = ("--model-memory-bytes", str(5 << 19), "--model-residency-ms", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    for name, factor in (("a", 2), ("b", 3), ("c", 4)):
        put(repository, name, 1, factor, ballast=BALLAST)
    return repository


@pytest.fixture
def server(start_server: StartServer, folder: Path) -> ServerProcess:
    return start_server(folder, *BUDGET)


def states(server: ServerProcess) -> dict[str, str]:
    return {name: state for (name, _), (state, _) in index(server).items()}


def test_what_does_not_fit_is_loaded_when_it_is_asked_for(server: ServerProcess) -> None:
    assert states(server) == {"a": "READY", "b": "READY", "c": "UNAVAILABLE"}
    assert index(server)["c", "1"][1] == "evicted: the next request loads it"
    assert answer(server, "b") == (3, "1")
    assert answer(server, "c") == (4, "1"), "it was waited for"
    assert states(server) == {"a": "UNAVAILABLE", "b": "READY", "c": "READY"}, "a was not used for the longest time"
    assert metric(server, "mlserve_model_evictions_total", model="a") == 1
    assert metric(server, "mlserve_model_bytes", model="a") == 0
    assert answer(server, "b") == (3, "1")
    assert answer(server, "a") == (2, "1")
    assert states(server) == {"a": "READY", "b": "READY", "c": "UNAVAILABLE"}


def test_an_evicted_model_is_ready_and_described(server: ServerProcess) -> None:
    client = triton_grpc.InferenceServerClient(server.grpc)
    assert client.is_model_ready("c"), "whoever asks it gets an answer"
    assert states(server)["c"] == "UNAVAILABLE", "asking whether it is ready does not load it"
    assert client.get_model_metadata("c").inputs[0].name == "x"
    assert ask(server.http, "GET", "/v2/models/a").status == 200


def test_a_pinned_model_stays(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, *BUDGET, "--set", "models.c.pin=true")
    assert states(server)["c"] == "READY", "loaded first"
    for name in ("a", "b", "a", "b"):
        answer(server, name)
        assert states(server)["c"] == "READY"


def test_a_crowd_for_an_evicted_model_is_answered_from_one_load(server: ServerProcess) -> None:
    found: list[tuple[float, str]] = []
    callers = [threading.Thread(target=lambda: found.append(answer(server, "c"))) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [(4, "1")] * 16
    ready = [line for line in server.log.read_text().splitlines() if "model is ready" in line]
    assert sum('"model":"c"' in line or "model=c" in line for line in ready) == 1


def test_callers_that_take_turns_lose_nothing(server: ServerProcess) -> None:
    """Three models, room for two, all asked at once: every answer is right, whatever has to go meanwhile."""
    wrong: list[object] = []

    def ask_often(name: str, factor: float) -> None:
        for _ in range(5):
            found = answer(server, name)
            if found != (factor, "1"):
                wrong.append((name, found))

    callers = [threading.Thread(target=ask_often, args=each) for each in (("a", 2.0), ("b", 3.0), ("c", 4.0))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_a_request_waits_no_longer_than_its_deadline(start_server: StartServer, folder: Path) -> None:
    slow = graphs.write(folder, "slow", graphs.slow())
    # Its warm-up runs last far longer than the caller waits.
    graphs.write(folder, "starter", graphs.slow_starter(slow_model.turns_for(slow, 1.0)))
    size = (folder / "a" / "1" / "model.onnx").stat().st_size
    server = start_server(folder, "--model-memory-bytes", str(2 * size))
    assert states(server)["starter"] == "UNAVAILABLE"
    inference = Inference("starter", [Tensor("x", "FP32", (1, 1), bytes(4))])
    refused = grpc_call(server.grpc, inference.message(), grpc_timeout="100m")
    assert refused.grpc_status == 4, refused
    eventually(lambda: states(server)["starter"] == "READY", limit_s=30, what="it to be loaded all the same")


def test_a_model_that_cannot_fit_says_so(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--model-memory-bytes", str(1 << 19))
    refused = infer(server, "a")
    assert refused.status == 503
    reason = index(server)["a", "1"][1]
    assert "limits.model_memory_bytes" in reason
    assert str(1 << 19) in reason


def test_loading_by_request_makes_room(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, *BUDGET, "--model-control-mode", "explicit")
    for name in ("a", "b", "c"):
        assert load(server, name).status == 200
    assert states(server) == {"a": "UNAVAILABLE", "b": "READY", "c": "READY"}
    assert answer(server, "a") == (2, "1"), "it comes back when it is asked"


def test_what_was_loaded_a_moment_ago_is_not_evicted_for_another(start_server: StartServer, folder: Path) -> None:
    """Two models for one place: without residence each request would have the other's model unloaded."""
    for_ever = ("--model-memory-bytes", str(3 << 19), "--model-residency-ms", "3600000", "--default-deadline-ms", "500")
    server = start_server(folder, *for_ever)
    assert states(server) == {"a": "READY", "b": "UNAVAILABLE", "c": "UNAVAILABLE"}
    late = infer(server, "b")
    assert (late.status, answer(server, "a")) == (504, (2, "1"))
    assert metric(server, "mlserve_model_evictions_total", model="a") == 0


def test_what_waits_for_room_gets_it_in_turn(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--model-memory-bytes", str(3 << 19), "--model-residency-ms", "200")
    found: list[tuple[float, str]] = []
    callers = [threading.Thread(target=lambda name=name: found.append(answer(server, name))) for name in "bcab"]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(found) == [(2, "1"), (3, "1"), (3, "1"), (4, "1")]
