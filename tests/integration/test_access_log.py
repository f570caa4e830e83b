"""The access log: off unless asked for, one JSON line per request, and nothing that a caller sends can forge one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask
from tests.raw_http2 import Http2Connection, framed, grpc_call, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

SOUND = Inference("mlp", [Tensor.of("x", np.ones((1, 8), np.float32), "FP32")])
# RFC 9113, section 6.5.2.
INITIAL_WINDOW_SIZE = 4
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    """The access lines so far."""
    found = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, found) if line.get("event") == "access"]


def waited_for(server: ServerProcess, count: int) -> list[dict[str, Any]]:
    eventually(lambda: len(lines(server)) >= count, limit_s=5, what=f"{count} access lines")
    return lines(server)


def test_without_the_flag_no_request_is_logged(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--drain-notice-ms", "0")
    size = len(server.log.read_bytes())
    for _ in range(20):
        assert grpc_call(server.grpc, SOUND.message()).grpc_status == 0
        grpc_call(server.grpc, b"broken")
    assert server.stop() == 0
    assert not lines(server)
    added = server.log.read_bytes()[size:].splitlines()
    assert len(added) < 10, added


def test_one_line_a_request_says_what_it_was(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    body, fields = SOUND.body()
    ids = {"x-request-id": "wagon-7", "traceparent": TRACE}
    assert ask(server.http, "POST", SOUND.target, body, {**fields, **ids}).status == 200
    assert grpc_call(server.grpc, SOUND.message(), x_request_id="wagon-8").grpc_status == 0
    assert ask(server.http, "GET", "/v2/models/nobody").status == 404
    first, second, third = sorted(waited_for(server, 3), key=lambda line: str(line["timestamp"]))
    assert (first["protocol"], first["model"], first["version"], first["code"]) == ("http", "mlp", 1, "ok")
    assert (first["request_id"], first["traceparent"]) == ("wagon-7", TRACE)
    assert (first["bytes_in"], first["bytes_out"] > 0, first["duration_s"] > 0) == (len(body), True, True)
    assert (second["protocol"], second["request_id"], second["code"]) == ("grpc", "wagon-8", "ok")
    assert (second["model"], second["version"]) == ("mlp", 1)
    assert (third["model"], third["code"]) == ("nobody", "not_found")


def test_a_line_tells_the_sequence_that_a_request_belongs_to(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    for sequence in (7, "wagon"):
        asked = Inference("mlp", SOUND.inputs, parameters={"sequence_id": sequence, "sequence_start": True})
        body, fields = asked.body()
        assert ask(server.http, "POST", asked.target, body, fields).status == 200
        assert grpc_call(server.grpc, asked.message()).grpc_status == 0
    assert grpc_call(server.grpc, SOUND.message()).grpc_status == 0
    found = sorted((line["protocol"], line["sequence_id"]) for line in waited_for(server, 5))
    assert found == [("grpc", ""), ("grpc", "7"), ("grpc", "wagon"), ("http", "7"), ("http", "wagon")]


def test_every_request_has_its_line(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    body, fields = SOUND.body()
    for _ in range(50):
        assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
        assert grpc_call(server.grpc, SOUND.message()).grpc_status == 0
    assert len(waited_for(server, 100)) == 100
    assert metric(server, "mlserve_access_log_dropped_total") == 0


def test_a_line_tells_that_an_answer_had_no_room_to_wait(start_server: StartServer, graph_folder: Path) -> None:
    """Answers of five megabytes that nobody reads: the first waits, the second is more than its connection may hold."""
    limits = ("--byte-budget", str(64 << 20), "--max-body-bytes", str(8 << 20))
    server = start_server(graph_folder / "identity_FP32", "--access-log", *limits)
    large = Inference("identity_FP32", [Tensor.of("x", np.ones((1, 1_300_000), np.float32), "FP32")])
    body, fields = large.body()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", large.target), (":authority", "localhost")]
    asked = {
        "grpc": (grpc_headers(), framed(large.message())),
        "http": ([*headers, *fields.items()], body),
    }
    for count, (protocol, (head, sent)) in enumerate(asked.items(), 1):
        with Http2Connection(server.http, {INITIAL_WINDOW_SIZE: 0}) as connection:
            streams = [connection.open(head) for _ in range(2)]
            for stream in streams:
                connection.send(stream, sent)
                while not connection.answers[stream].headers:
                    connection.receive()
            found = [line for line in waited_for(server, 2 * count) if line["protocol"] == protocol]
        assert sorted(line["code"] for line in found) == ["ok", "out_of_budget"], (protocol, found)
        refused = next(line for line in found if line["code"] == "out_of_budget")
        assert (refused["status"], refused["bytes_out"] < 1_000) == (14 if protocol == "grpc" else 503, True)


def test_what_callers_send_forges_no_line(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    forged = 'x"}\n{"event": "access", "code": "forged"}\n\x1b[31m'
    grpc_call(server.grpc, Inference(forged, SOUND.inputs, id=forged).message())
    body, fields = Inference("mlp", SOUND.inputs, id=forged).body()
    ask(server.http, "POST", "/v2/models/mlp/infer", body, fields)
    found = waited_for(server, 2)
    assert [line["code"] for line in found if line["code"] == "forged"] == []
    assert {line["request_id"] for line in found} == {forged}
