"""Every port and the Unix socket answer HTTP/1.1, HTTP/2 with prior knowledge, and gRPC; ids come back on all of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from mlserve import Client
from tests.conftest import serving
from tests.raw_http import ask, connected, head, read_answer
from tests.raw_http2 import INFER, Http2Connection, framed, grpc_call, grpc_headers, http_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SOUND = Inference("identity_FP32", [Tensor.of("x", X, "FP32")])
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IDS = {"x-request-id": "wagon-7", "traceparent": TRACE}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, graph_folder: Path) -> Iterator[tuple[ServerProcess, str]]:
    """A server with a Unix socket, and the socket's address."""
    # Paths of sockets may have a hundred characters; pytest's folders can be longer.
    folder = Path(tempfile.mkdtemp(prefix="mlserve-"))
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(graph_folder / "identity_FP32", "--uds", str(folder / "s")), f"unix:{folder / 's'}"
    shutil.rmtree(folder)


@pytest.fixture(params=["http", "grpc", "uds"])
def address(request: pytest.FixtureRequest, server: tuple[ServerProcess, str]) -> str:
    process, socket = server
    return {"http": process.http, "grpc": process.grpc, "uds": socket}[request.param]


def test_http1_is_answered(address: str) -> None:
    body, fields = SOUND.body()
    assert ask(address, "POST", SOUND.target, body, fields).json["outputs"][0]["data"] == X.ravel().tolist()


def test_http2_with_prior_knowledge_is_answered(address: str) -> None:
    body, fields = SOUND.body()
    found = http_call(address, "POST", SOUND.target, body, fields)
    assert found.status == 200
    assert found.json["outputs"][0]["data"] == X.ravel().tolist()


def test_grpc_is_answered(address: str) -> None:
    found = grpc_call(address, SOUND.message())
    assert found.grpc_status == 0
    assert found.messages()[0].endswith(X.tobytes())


def test_a_foreign_grpc_library_is_answered(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(INFER)
        assert call(SOUND.message()).endswith(X.tobytes())


def test_both_protocols_share_a_connection(address: str) -> None:
    body, fields = SOUND.body()
    first = [(":method", "POST"), (":scheme", "http"), (":path", SOUND.target), (":authority", "t"), *fields.items()]
    with Http2Connection(address) as connection:
        rest, rpc = connection.open(first), connection.open(grpc_headers())
        connection.send(rpc, framed(SOUND.message()))
        connection.send(rest, body)
        assert connection.answer(rest).as_http().status == 200
        assert connection.answer(rpc).grpc_status == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_our_client_speaks_over_the_unix_socket(server: tuple[ServerProcess, str], protocol: str) -> None:
    path = server[1].removeprefix("unix:")
    with Client(f"unix://{path}", protocol=protocol) as client:  # type: ignore[arg-type]
        np.testing.assert_array_equal(client.infer("identity_FP32", X)["y"], X)


def test_a_connection_is_kept(address: str) -> None:
    body, fields = SOUND.body()
    data = head("POST", SOUND.target, {**fields, "content-length": str(len(body))}) + body
    with connected(address) as opened:
        for _ in range(50):
            opened.sendall(data)
            answer = read_answer(opened)
            assert answer is not None
            assert answer.status == 200


def test_pipelined_requests_are_answered_in_order(address: str) -> None:
    requests = [Inference("identity_FP32", [Tensor.of("x", X + index, "FP32")]) for index in range(20)]
    data = b""
    for inference in requests:
        body, fields = inference.body()
        data += head("POST", inference.target, {**fields, "content-length": str(len(body))}) + body
    with connected(address) as opened:
        opened.sendall(data + head("GET", "/v2/health/live", {"connection": "close"}))
        received = b""
        while piece := opened.recv(1 << 16):
            received += piece
    at = -1
    for index in range(20):
        found = received.find(b'"data":[', at + 1)
        assert found > at
        numbers = [float(number) for number in received[found + 8 : received.index(b"]", found)].split(b",")]
        assert numbers == (X + index).ravel().tolist()
        at = found


def test_http_without_a_model_is_answered_everywhere(address: str) -> None:
    for call in (ask, http_call):
        assert call(address, "GET", "/v2/health/live").status == 200
        assert call(address, "GET", "/v2").json["name"] == "mlserve"
        answer = call(address, "HEAD", "/v2/health/ready")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("body", [b"", b"{broken"])
def test_ids_come_back_over_http_with_answers_and_refusals(address: str, body: bytes) -> None:
    sound, fields = SOUND.body()
    for call in (ask, http_call):
        found = call(address, "POST", SOUND.target, body or sound, {**({} if body else fields), **IDS})
        assert found.status == (400 if body else 200)
        assert {name: found.headers.get(name) for name in IDS} == IDS


@pytest.mark.parametrize("message", [b"", b"broken"])
def test_ids_come_back_over_grpc_with_answers_and_refusals(address: str, message: bytes) -> None:
    with Http2Connection(address) as connection:
        stream = connection.open([*grpc_headers(), *IDS.items()])
        connection.send(stream, framed(message or SOUND.message()))
        found = connection.answer(stream)
    assert (found.grpc_status == 0) == (not message)
    assert {name: found.headers.get(name) for name in IDS} == IDS


def test_a_free_port_is_picked_and_told(server: tuple[ServerProcess, str]) -> None:
    process, _ = server
    ports = [int(address.rpartition(":")[2]) for address in (process.http, process.grpc, process.metrics)]
    assert len(set(ports)) == 3
    assert 0 not in ports
    log = process.log.read_text()
    assert all(f"http://{address}" in log for address in (process.http, process.grpc, process.metrics))


def test_a_socket_that_is_left_over_is_replaced(tmp_path_factory: pytest.TempPathFactory, graph_folder: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mlserve-"))
    try:
        with serving(tmp_path_factory.mktemp("first")) as start:
            killed = start(graph_folder / "identity_FP32", "--uds", str(folder / "s"))
            killed.process.kill()
            killed.process.wait()
            assert (folder / "s").exists()
            again = start(graph_folder / "identity_FP32", "--uds", str(folder / "s"), "--drain-notice-ms", "0")
            assert ask(f"unix:{folder / 's'}", "GET", "/v2/health/ready").status == 200
            assert again.stop() == 0
            assert not (folder / "s").exists()
    finally:
        shutil.rmtree(folder)
