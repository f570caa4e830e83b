"""A fault of ours while an HTTP request is answered ends that request alone, and is counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs
from tests.oracle import metric
from tests.raw_http import ask, connected, head, read_answer
from tests.raw_http2 import http_call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

TARGET = "/v2/models/identity_FP32/infer"
LIVE = head("GET", "/v2/health/live")
# Above what is decoded on the loop itself.
LARGE = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 60_000], "datatype": "FP32", "data": np.ones(60_000).tolist()}]}
).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return graphs.write_all(tmp_path / "models", ("identity_FP32",))


def panics(server: ServerProcess, place: str) -> float:
    return metric(server, "mlserve_panics_total", place=place)


def test_a_panic_while_an_answer_is_made_ends_its_connection_alone(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--event-loops", "1", env={"FAILPOINTS": "http_reply panic @2"})
    with connected(server.http) as neighbour, connected(server.http) as opened:
        neighbour.sendall(LIVE)
        assert read_answer(neighbour, "GET") is not None
        opened.sendall(LIVE)
        assert read_answer(opened, "GET") is None, "its connection is closed"
        neighbour.sendall(LIVE)
        answer = read_answer(neighbour, "GET")
        assert answer is not None
        assert answer.status == 200
    assert panics(server, "connection") == 1
    assert ask(server.http, "POST", TARGET, LARGE).status == 200


def test_a_panic_on_a_decoding_thread_is_that_requests_error(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--event-loops", "1", env={"FAILPOINTS": "decode panic @1"})
    with connected(server.http) as opened:
        request = head("POST", TARGET, {"content-length": str(len(LARGE))}) + LARGE
        for status in (500, 200):
            opened.sendall(request)
            answer = read_answer(opened)
            assert answer is not None
            assert answer.status == status
    assert panics(server, "decoder") == 1


def test_a_panic_over_http2_ends_no_other_connection(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--event-loops", "1", env={"FAILPOINTS": "http_reply panic @2"})
    with connected(server.http) as neighbour:
        neighbour.sendall(LIVE)
        assert read_answer(neighbour, "GET") is not None
        with pytest.raises(KeyError, match=":status"):
            # Its stream is reset.
            http_call(server.http, "GET", "/v2/health/live")
        neighbour.sendall(LIVE)
        assert read_answer(neighbour, "GET") is not None
