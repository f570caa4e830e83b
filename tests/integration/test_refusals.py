"""Requests that failed leave a trace: in the log, counted and with an example, and in the access log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import eventually
from tests.raw_http import ask, connected, head, open_socket
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

SOUND = Inference("mlp", [Tensor.of("x", np.ones((1, 8), np.float32), "FP32")])
WRONG = Inference("mlp", [Tensor.of("x", np.ones((1, 7), np.float32), "FP32")])
RPC = "/inference.GRPCInferenceService/ModelInfer"
ROUTE = "/v2/models/{model}/infer"


def logged(server: ServerProcess, **fields: object) -> list[dict[str, Any]]:
    """The log lines so far that have these fields."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if all(line.get(name) == value for name, value in fields.items())]


def waited_for(server: ServerProcess, count: int, **fields: object) -> list[dict[str, Any]]:
    eventually(lambda: len(logged(server, **fields)) >= count, limit_s=10, what=f"{count} lines with {fields}")
    return logged(server, **fields)


def test_each_kind_of_failure_has_a_line_with_an_example(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp")
    body, fields = WRONG.body()
    assert ask(server.http, "POST", WRONG.target, body, fields).status == 400
    assert ask(server.http, "GET", "/v2/models/nobody").status == 404
    assert ask(server.http, "GET", "/favicon.ico").status == 404
    (wrong,) = waited_for(server, 1, code="invalid_argument")
    (nobody,) = waited_for(server, 1, code="not_found")
    (unknown,) = waited_for(server, 1, code="unknown_route")
    assert (wrong["level"], wrong["protocol"], wrong["route"], wrong["model"]) == ("INFO", "http", ROUTE, "mlp")
    assert (wrong["count"], wrong["client"].startswith("127.0.0.1:")) == (1, True)
    assert "[1,7]" in wrong["text"].replace(" ", "")
    assert (nobody["route"], nobody["model"]) == ("/v2/models/{model}", "nobody")
    assert (unknown["route"], unknown["model"]) == ("unknown", "")


def test_a_call_over_grpc_that_fails_names_its_model(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp")
    assert grpc_call(server.grpc, WRONG.message()).grpc_status == 3
    (found,) = waited_for(server, 1, code="invalid_argument")
    assert (found["protocol"], found["route"], found["model"]) == ("grpc", RPC, "mlp")
    assert found["client"].startswith("127.0.0.1:")


def test_many_failures_make_few_lines(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--drain-notice-ms", "0")
    for _ in range(300):
        assert ask(server.http, "GET", "/v2/models/nobody").status == 404
    assert server.stop() == 0
    # One in ten seconds.
    found = logged(server, code="not_found")
    assert 1 <= len(found) <= 1 + 300 // 10, found
    assert found[0]["count"] == 1


def test_every_failure_has_a_line_for_debugging(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--log-level", "debug", "--drain-notice-ms", "0")
    for _ in range(5):
        assert ask(server.http, "GET", "/v2/models/nobody").status == 404
        assert grpc_call(server.grpc, WRONG.message()).grpc_status == 3
    assert server.stop() == 0
    assert len(logged(server, level="DEBUG", code="not_found", protocol="http")) == 5
    assert len(logged(server, level="DEBUG", code="invalid_argument", protocol="grpc")) == 5


def test_what_cannot_even_be_read_leaves_a_trace(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    with open_socket(server.http) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nbroken header\r\n\r\n")
        assert opened.recv(12) == b"HTTP/1.1 400"
    (line,) = waited_for(server, 1, event="access")
    assert (line["status"], line["code"], line["route"]) == (400, "invalid_argument", "unknown")
    waited_for(server, 1, level="INFO", code="invalid_argument")


def test_the_access_log_tells_status_route_and_client(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    body, fields = WRONG.body()
    assert ask(server.http, "POST", WRONG.target, body, fields).status == 400
    assert grpc_call(server.grpc, WRONG.message()).grpc_status == 3
    body, fields = SOUND.body()
    assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
    assert grpc_call(server.grpc, SOUND.message()).grpc_status == 0
    found = waited_for(server, 4, event="access")
    told = {(line["protocol"], line["status"], line["code"], line["route"]) for line in found}
    bad = "invalid_argument"
    assert told == {
        ("http", 400, bad, ROUTE),
        ("grpc", 3, bad, RPC),
        ("http", 200, "ok", ROUTE),
        ("grpc", 0, "ok", RPC),
    }
    assert all(line["client"].startswith("127.0.0.1:") for line in found)


def test_a_caller_that_leaves_has_its_line_too(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    body, fields = SOUND.body()
    with connected(server.http) as opened:
        opened.sendall(head("POST", SOUND.target, {**fields, "content-length": str(len(body))}) + body[:10])
    (line,) = waited_for(server, 1, event="access")
    assert (line["code"], line["status"]) == ("cancelled", 499)
