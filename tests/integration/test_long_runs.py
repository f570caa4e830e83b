"""Runs that do not end, requests of thousands of runs, answers that are too large, and a process that was paused."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlserve import Client
from mlserve.errors import TooLargeError
from tests import graphs
from tests.conftest import ServerProcess, StartServer, eventually, serving
from tests.oracle import metric
from tests.raw_http import ask as http_ask
from tests.raw_http2 import Http2Connection, framed, grpc_call, grpc_headers
from tests.requests_by_hand import Inference, Tensor

pytestmark = pytest.mark.server

DEADLINE_EXCEEDED = 4
# Some days of turns: what answers beside them, or after them, was not waiting for their end.
ENDLESS = 10**12
LIMIT_S = 20.0
SETTINGS = (
    "models.endless.instances=2",
    "server.event_loops=2",
    f"limits.arena_bytes={512 << 20}",
    f"limits.byte_budget={64 << 20}",
    f"limits.max_response_bytes={4 << 20}",
)
# Longer than the pause that the server notices, which is a bit more than two seconds.
PAUSE_S = 3.0


def endless() -> bytes:
    """As many turns of a loop as the input says, without a bound."""
    nodes = [graphs.node("Squeeze", ["turns"], ["count"]), graphs.loop("count", "y")]
    inputs = [graphs.value("turns", "INT64", [1])]
    return graphs.model(nodes, inputs, [graphs.value("y", "FP32", [1])], [*graphs.LOOP_CONSTANTS])


def ask(turns: int) -> bytes:
    """A request for so many turns."""
    return Inference("endless", [Tensor.of("turns", np.array([turns]), "INT64")]).message()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two instances of a model without end, beside models that answer at once."""
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ["mlp", "large", "identity_FP32"])
    graphs.write(folder, "endless", endless())
    with serving(tmp_path_factory.mktemp("long-runs")) as start:
        yield start(folder, *(part for setting in SETTINGS for part in ("--set", setting)))


def is_answered_at_once(server: ServerProcess) -> bool:
    return grpc_call(server.grpc, ask(1), grpc_timeout="15S").grpc_status == 0


def test_runs_without_end_stop_at_their_callers_deadlines(server: ServerProcess) -> None:
    # Short runs first, so that the server takes the model for a quick one.
    assert all(is_answered_at_once(server) for _ in range(20))
    with Http2Connection(server.grpc) as connection:
        streams = [connection.open(grpc_headers(grpc_timeout="500m")) for _ in range(6)]
        for stream in streams:
            connection.send(stream, framed(ask(ENDLESS)))
        assert http_ask(server.metrics, "GET", "/livez").status == 200
        answers = [connection.answer(stream) for stream in streams]
    assert {answer.grpc_status for answer in answers} == {DEADLINE_EXCEEDED}
    assert is_answered_at_once(server), "its instances are free again"
    eventually(
        lambda: metric(server, "mlserve_abandoned_runs", model="endless") == 0, limit_s=LIMIT_S, what="all have stopped"
    )
    assert http_ask(server.metrics, "GET", "/readyz").status == 200


def test_runs_without_end_stop_when_their_callers_have_gone(server: ServerProcess) -> None:
    begun = metric(server, "mlserve_runs_total", model="endless")
    with Http2Connection(server.grpc) as connection:
        for _ in range(2):
            connection.send(connection.open(grpc_headers()), framed(ask(ENDLESS)))
        eventually(
            lambda: metric(server, "mlserve_runs_total", model="endless") == begun + 2,
            limit_s=LIMIT_S,
            what="both instances run",
        )
    assert is_answered_at_once(server)


def test_a_run_without_end_does_not_keep_the_server_from_ending(start_server: StartServer, tmp_path: Path) -> None:
    graphs.write(tmp_path / "models", "endless", endless())
    server = start_server(tmp_path / "models", "--set", "server.drain_timeout_ms=300")
    with Http2Connection(server.grpc) as connection:
        connection.send(connection.open(grpc_headers()), framed(ask(ENDLESS)))
        eventually(lambda: metric(server, "mlserve_runs_total", model="endless") == 1, limit_s=LIMIT_S, what="it runs")
        assert server.stop() == 0


@pytest.mark.parametrize("way", ["grpc", "http", "in process"])
def test_a_request_of_thousands_of_runs_is_answered(server: ServerProcess, graph_folder: Path, way: str) -> None:
    rows = np.arange(300_000, dtype=np.float32).reshape(-1, 1)
    if way == "in process":
        from mlserve import Server as InProcess  # noqa: PLC0415 -- needs the extension

        with InProcess(models={"identity": graph_folder / "identity_FP32" / "1" / "model.onnx"}) as inside:
            (found,) = inside.infer("identity", {"x": rows}).values()
    else:
        with Client(server.grpc if way == "grpc" else f"http://{server.http}") as client:
            (found,) = client.infer("identity_FP32", {"x": rows}).values()
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("rows", [100_000_000, 1 << 62, (1 << 63) - 1])
def test_rows_without_bytes_are_refused_before_anything_is_made_of_them(server: ServerProcess, rows: int) -> None:
    runs = metric(server, "mlserve_runs_total", model="identity_FP32")
    request = Inference("identity_FP32", [Tensor("x", "FP32", [rows, 0])])
    answer = grpc_call(server.grpc, request.message())
    assert answer.code in {"too_large", "invalid_argument"}, answer.grpc_text
    assert metric(server, "mlserve_runs_total", model="identity_FP32") == runs


def test_a_model_that_was_asked_for_too_much_answers_the_next(server: ServerProcess) -> None:
    def large(count: int) -> bytes:
        return Inference("large", [Tensor.of("count", np.array([count]), "INT64")]).message()

    # More than the runtime may have, more than the byte budget and an answer may have, more than an answer may have.
    for count, setting in [
        (900_000_000, "limits.arena_bytes"),
        (12_000_000, "limits."),
        (1_000_000, "limits.max_response_bytes"),
    ]:
        refused = grpc_call(server.grpc, large(count))
        assert refused.grpc_status != 0
        assert setting in refused.grpc_text
        for _ in range(5):
            assert grpc_call(server.grpc, large(5)).grpc_status == 0


def test_what_came_during_a_pause_counts_from_its_beginning(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(graphs.write_all(tmp_path / "models", ["identity_FP32"]))
    message = Inference("identity_FP32", [Tensor.of("x", np.ones((1, 1), np.float32), "FP32")]).message()
    assert grpc_call(server.grpc, message).grpc_status == 0
    runs = metric(server, "mlserve_runs_total", model="identity_FP32")
    with Http2Connection(server.grpc) as connection:
        # Settled, so that nothing but the requests waits in the socket.
        connection.send(settled := connection.open(grpc_headers()), framed(message))
        assert connection.answer(settled).grpc_status == 0
        server.process.send_signal(signal.SIGSTOP)
        try:
            streams = [connection.open(grpc_headers(grpc_timeout="1S")) for _ in range(50)]
            for stream in streams:
                connection.send(stream, framed(message))
            resumed = time.monotonic() + PAUSE_S
            eventually(lambda: time.monotonic() > resumed, limit_s=2 * PAUSE_S, what="the pause is over")
        finally:
            server.process.send_signal(signal.SIGCONT)
        answers = [connection.answer(stream) for stream in streams]
    assert {answer.grpc_status for answer in answers} == {DEADLINE_EXCEEDED}
    assert metric(server, "mlserve_runs_total", model="identity_FP32") == runs + 1, "none of them was run"
    assert grpc_call(server.grpc, message, grpc_timeout="15S").grpc_status == 0, "what comes later is new"


def test_requests_of_the_same_process_pass_the_same_limits(graph_folder: Path) -> None:
    from mlserve import Server as InProcess  # noqa: PLC0415 -- needs the extension

    models = {"identity": graph_folder / "identity_FP32" / "1" / "model.onnx"}
    with InProcess(models=models, limits={"max_body_bytes": 4_096, "byte_budget": 1 << 20}) as inside:
        with pytest.raises(TooLargeError, match=r"limits\.max_body_bytes"):
            inside.infer("identity", {"x": np.zeros((2_000, 1), np.float32)})
        with pytest.raises(TooLargeError, match="max_batch_rows"):
            inside.infer("identity", {"x": np.zeros((100_000_000, 0), np.float32)})
        np.testing.assert_array_equal(
            inside.infer("identity", {"x": np.ones((3, 1), np.float32)})["y"], np.ones((3, 1), np.float32)
        )
