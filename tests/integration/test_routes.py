"""What is no route, no method or no proper HTTP/1.1: 404, 405 and 400, and never a guess at what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.raw_http import ask, connected, exchange, head, read_answer
from tests.raw_http2 import grpc_call, http_call

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

TARGET = "/v2/models/identity_FP32/infer"
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'


@pytest.mark.parametrize(
    "target",
    [
        "/v1",
        "/v1/models/mlp:explain",
        "/predict",
        "/docs/",
        "/v2/",
        "/v2/models",
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/mlp/",
        "/v2/models/mlp/versions",
        "/v2/models/mlp/versions/x/ready",
        "/v2/models/mlp/versions/-1",
        "/v2/health",
        "/v2/health/started",
        "/v2/../v2/health/live",
        "/v2/models/../health/live",
        "//v2/health/live",
        "/V2/health/live",
        "/metrics",
        "/v2/models/mlp/" + "x/" * 1_000,
    ],
)
def test_what_is_no_route_is_not_found(attacked: ServerProcess, target: str) -> None:
    for call in (ask, http_call):
        found = call(attacked.http, "GET", target)
        assert (found.status, found.text, found.headers["mlserve-code"]) == (404, "Not Found", "unknown_route")


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", TARGET, "POST, OPTIONS"),
        ("PUT", TARGET, "POST, OPTIONS"),
        ("DELETE", "/v2/models/mlp", "GET, HEAD, OPTIONS"),
        ("POST", "/v2/health/live", "GET, HEAD, OPTIONS"),
        ("BREW", "/v2", "GET, HEAD, OPTIONS"),
        ("TRACE", "/v2/logging", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_a_method_that_a_route_does_not_have_is_answered_with_those_it_has(
    attacked: ServerProcess, method: str, target: str, allowed: str
) -> None:
    for call in (ask, http_call):
        found = call(attacked.http, method, target)
        assert (found.status, found.headers["allow"], found.text) == (405, allowed, "Method Not Allowed")


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (TARGET, "POST, OPTIONS"),
        ("/v2", "GET, HEAD, OPTIONS"),
        ("/v2/logging", "GET, HEAD, POST, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_options_tells_the_methods_of_a_route(attacked: ServerProcess, target: str, allowed: str) -> None:
    found = ask(attacked.http, "OPTIONS", target)
    assert (found.status, found.headers["allow"], found.body) == (204, allowed, b"")
    assert ask(attacked.http, "OPTIONS", "/nowhere").status == 404


@pytest.mark.parametrize("name", ["%6dlp", "mlp%00", "%2e%2e", "mlp%2f1", "%ff", "%", "%zz", "mlp;a=1", "mlp?x=1"])
def test_a_name_in_a_path_is_decoded_once_and_is_never_a_path(attacked: ServerProcess, name: str) -> None:
    found = ask(attacked.http, "GET", f"/v2/models/{name}")
    expected = {"%6dlp": 200, "mlp?x=1": 200, "%ff": 400, "%": 400, "%zz": 400}.get(name, 404)
    assert found.status == expected, found


@pytest.mark.parametrize(
    "path",
    [
        "/inference.GRPCInferenceService/Nothing",
        "/inference.GRPCInferenceService/modelinfer",
        "/inference.GRPCInferenceService/",
        "/inference.GRPCInferenceService/ModelInfer/",
        "/other.Service/ModelInfer",
        "/v2/health/live",
        "/",
    ],
)
def test_an_unknown_rpc_is_unimplemented_and_named(attacked: ServerProcess, path: str) -> None:
    found = grpc_call(attacked.grpc, b"", path)
    assert (found.grpc_status, found.code) == (12, "unknown_route")
    assert path in found.grpc_text


def test_a_content_type_of_another_codec_is_not_offered(attacked: ServerProcess) -> None:
    found = grpc_call(attacked.grpc, b"", content_type="application/grpc+json")
    assert (found.grpc_status, found.code) == (12, "not_offered")


GARBAGE = {
    "no version": b"GET /v2/health/live\r\n\r\n",
    "a version of the future": b"GET /v2/health/live HTTP/9.9\r\nhost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nhost: a\r\n\r\n",
    "control characters in a field": b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nx: a\x01b\0\r\n\r\n",
    "a space before the colon": b"GET /v2/health/live HTTP/1.1\r\nhost : a\r\n\r\n",
    "a field without a colon": b"GET /v2/health/live HTTP/1.1\r\nhost\r\n\r\n",
    "a folded field": b"GET /v2/health/live HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n",
    "two lengths": b"POST " + TARGET.encode() + b" HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde",
    "a length that is none": b"POST " + TARGET.encode() + b" HTTP/1.1\r\ncontent-length: 3x\r\n\r\nabc",
    "a negative length": b"POST " + TARGET.encode() + b" HTTP/1.1\r\ncontent-length: -3\r\n\r\nabc",
    "an unknown transfer coding": b"POST " + TARGET.encode() + b" HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\nabc",
    "a chunk of nonsense": b"POST " + TARGET.encode() + b" HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc",
    "a chunk of all bytes": b"POST "
    + TARGET.encode()
    + b" HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_http_is_400_or_hung_up_on(attacked: ServerProcess, name: str) -> None:
    found = exchange(attacked.http, GARBAGE[name])
    assert found is None or found.status == 400


def test_a_length_beside_chunks_does_not_smuggle_a_request(attacked: ServerProcess) -> None:
    """The chunks count; what follows them is the next request, or the connection ends."""
    chunks = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    with connected(attacked.http) as opened:
        fields = {"content-length": "5", "transfer-encoding": "chunked"}
        opened.sendall(head("POST", TARGET, fields) + chunks + head("GET", "/v2/health/live"))
        first = read_answer(opened)
        assert first is not None
        assert first.status in {200, 400}
        if first.status == 200 and first.headers.get("connection") != "close":
            second = read_answer(opened, "GET")
            assert second is None or second.json == {"live": True}


def test_expect_continue_is_answered(attacked: ServerProcess) -> None:
    """The C++ client sends an empty one; curl sends a real one for large bodies."""
    with connected(attacked.http) as opened:
        fields = {"content-length": str(len(BODY)), "expect": "100-continue"}
        opened.sendall(head("POST", TARGET, fields))
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        opened.sendall(BODY)
        answer = read_answer(opened)
    assert answer is not None
    assert answer.status == 200
    assert ask(attacked.http, "POST", TARGET, BODY, {"expect": ""}).status == 200
