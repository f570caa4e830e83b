"""Cut off, flipped and random bytes where messages and bodies should be: the documented refusals, thousands of times."""

from __future__ import annotations

import contextlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from mlserve.client._proto import inference_pb2
from tests.raw_http import connected, head, read_answer
from tests.raw_http2 import INFER, Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

SEED = 20_260_822
# What a message that is none may come to; it may also happen to be one.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
HTTP_REFUSALS = {400, 404, 413, 501}
ANSWER_LIMIT_S = 90.0
# Calls that are under way at once: what a server allows on one connection.
AT_ONCE = 100

MIXED = Inference(
    "mixed",
    [
        Tensor("x", "FP32", (2, 2, 2), np.arange(8, dtype=np.float32).tobytes()),
        Tensor("ids", "INT64", (2, 3), np.arange(6, dtype=np.int64).tobytes()),
        Tensor("name", "BYTES", (2, 1), struct.pack("<I", 1) + b"a" + struct.pack("<I", 0)),
    ],
    outputs={"total": {}, "marked": {}},
    parameters={"priority": 1, "note": "x", "yes": True, "share": 0.5},
    version="1",
    id="seven",
)


def typed() -> bytes:
    """A message with typed contents of several kinds."""
    request: Any = inference_pb2.ModelInferRequest.FromString(MIXED.message())
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend(range(8))
    request.inputs[1].contents.int64_contents.extend(range(-3, 3))
    request.inputs[2].contents.bytes_contents.extend([b"a", b""])
    message: bytes = request.SerializeToString()
    return message


MESSAGES = {"raw": MIXED.message(), "typed": typed()}


def document() -> bytes:
    """A body of JSON alone."""
    found: dict[str, Any] = json.loads(MIXED.body()[0][: int(MIXED.body()[1]["inference-header-content-length"])])
    data = [list(range(8)), list(range(6)), ["a", "\u00e9"]]
    for tensor, elements in zip(found["inputs"], data, strict=True):
        tensor["data"] = elements
        del tensor["parameters"]
    return json.dumps(found).encode()


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {"binary": MIXED.body(), "json": (document(), {})}


def mutations(original: bytes, count: int) -> Iterator[bytes]:
    """Variants with some bytes flipped, removed, doubled or replaced."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        changed = bytearray(original)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(changed)))
            match int(rng.integers(0, 4)):
                case 0:
                    changed[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
                case 2:
                    del changed[at : at + int(rng.integers(1, 9))]
                case _:
                    changed[at:at] = changed[at : at + int(rng.integers(1, 9))]
            if not changed:
                changed = bytearray(b"\0")
        yield bytes(changed)


def noise(count: int) -> Iterator[bytes]:
    """Random bytes of lengths from 0 up."""
    rng = np.random.default_rng(SEED + 1)
    for _ in range(count):
        yield rng.bytes(int(rng.integers(0, 200)))


def statuses(server: ServerProcess, messages: Iterable[bytes]) -> Counter[grpc.StatusCode]:
    """Sends messages as they are, many at once, and counts what they come to."""
    counted: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(server.grpc) as channel:
        call: Any = channel.unary_unary(INFER)
        waiting: list[Any] = []
        for message in messages:
            waiting.append(call.future(message, timeout=ANSWER_LIMIT_S))
            if len(waiting) == AT_ONCE:
                counted.update(one.code() for one in waiting)
                waiting.clear()
        counted.update(one.code() for one in waiting)
    return counted


def http_statuses(server: ServerProcess, target: str, bodies: Iterable[bytes], fields: dict[str, str]) -> Counter[int]:
    """Posts bodies one after the other on kept connections; every refusal must have a text."""
    counted: Counter[int] = Counter()
    bodies = iter(bodies)
    is_open = True
    while is_open:
        is_open = False
        with connected(server.http) as opened:
            for body in bodies:
                opened.sendall(head("POST", target, {**fields, "content-length": str(len(body))}) + body)
                answer = read_answer(opened)
                assert answer is not None, body
                counted[answer.status] += 1
                if answer.status != 200:
                    assert answer.text
                if answer.headers.get("connection") == "close":
                    is_open = True
                    break
    return counted


@pytest.mark.parametrize("name", MESSAGES)
def test_every_prefix_of_a_message_is_refused(attacked: ServerProcess, name: str) -> None:
    message = MESSAGES[name]
    counted = statuses(attacked, (message[:length] for length in range(len(message))))
    assert set(counted) <= REFUSALS | {grpc.StatusCode.OK}
    # Cut between two fields it may be a whole request, with fewer wishes; most are none.
    assert counted[grpc.StatusCode.OK] <= 5
    assert statuses(attacked, [message]) == {grpc.StatusCode.OK: 1}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_with_changed_bytes_are_answered_or_refused(attacked: ServerProcess, name: str) -> None:
    counted = statuses(attacked, mutations(MESSAGES[name], 2_500))
    assert set(counted) <= REFUSALS | {grpc.StatusCode.OK}, counted
    assert counted[grpc.StatusCode.INVALID_ARGUMENT] > 500


def test_random_bytes_are_no_message(attacked: ServerProcess) -> None:
    counted = statuses(attacked, noise(2_500))
    assert set(counted) <= REFUSALS, counted


@pytest.mark.parametrize(
    "method", ["ModelReady", "ModelMetadata", "ModelStreamInfer", "ModelInfer", "ServerLive", "ModelConfig"]
)
def test_random_bytes_hurt_no_rpc(attacked: ServerProcess, method: str) -> None:
    check_random_calls(attacked, f"/inference.GRPCInferenceService/{method}")


@pytest.mark.parametrize(
    "path", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
)
def test_random_bytes_hurt_no_service_beside(attacked: ServerProcess, path: str) -> None:
    check_random_calls(attacked, path)


def check_random_calls(server: ServerProcess, path: str) -> None:
    allowed = REFUSALS | {grpc.StatusCode.OK}
    with grpc.insecure_channel(server.grpc) as channel:
        for message in noise(100):
            method: Any = channel.stream_stream(path)
            call = method(iter([message]), timeout=ANSWER_LIMIT_S)
            # A call has no end before its answers have been read.
            with contextlib.suppress(grpc.RpcError):
                list(call)
            assert call.code() in allowed, (message, call.code(), call.details())


@pytest.mark.parametrize("name", BODIES)
def test_every_prefix_of_a_body_is_refused(attacked: ServerProcess, name: str) -> None:
    body, fields = BODIES[name]
    counted = http_statuses(attacked, MIXED.target, (body[:length] for length in range(len(body))), fields)
    assert set(counted) <= {400}, counted
    assert http_statuses(attacked, MIXED.target, [body], fields) == {200: 1}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_with_changed_bytes_are_answered_or_refused(attacked: ServerProcess, name: str) -> None:
    body, fields = BODIES[name]
    counted = http_statuses(attacked, MIXED.target, mutations(body, 1_500), fields)
    assert set(counted) <= HTTP_REFUSALS | {200}, counted
    assert counted[400] > 300


def test_random_bytes_are_no_body(attacked: ServerProcess) -> None:
    assert set(http_statuses(attacked, MIXED.target, noise(1_000), {})) <= HTTP_REFUSALS
    assert (
        set(http_statuses(attacked, MIXED.target, noise(300), {"inference-header-content-length": "20"}))
        <= HTTP_REFUSALS
    )
    for encoding in ("gzip", "deflate"):
        assert set(http_statuses(attacked, MIXED.target, noise(300), {"content-encoding": encoding})) <= HTTP_REFUSALS


def test_a_body_that_ends_before_its_length_hurts_nobody(attacked: ServerProcess) -> None:
    body, fields = BODIES["binary"]
    whole = head("POST", MIXED.target, {**fields, "content-length": str(len(body))}) + body
    for length in range(0, len(whole), 7):
        with connected(attacked.http) as opened:
            opened.sendall(whole[:length])


def test_random_bytes_on_a_connection_hurt_nobody(attacked: ServerProcess) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for index, garbage in enumerate(noise(300)):
        with connected(attacked.grpc) as opened:
            opened.sendall((preface if index % 2 else b"") + garbage)


FRAMES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no message": (b"", {}, 3, "the call carries no message"),
    "half a prefix": (b"\0\0\0", {}, 3, "cut off after 3 bytes"),
    "half a message": (framed(MESSAGES["raw"])[:-1], {}, 3, "cut off"),
    "two messages": (framed(b"") * 2, {}, 3, "more than one message"),
    "unknown flag": (b"\2\0\0\0\0", {}, 3, "compression flag is 2"),
    "compressed, but how": (framed(b"", is_compressed=True), {}, 3, "grpc-encoding does not say how"),
    "no such encoding": (framed(b""), {"grpc_encoding": "br"}, 12, "identity, gzip and deflate"),
    "not compressed after all": (framed(b"abc", is_compressed=True), {"grpc_encoding": "gzip"}, 3, "not valid gzip"),
    "a length beyond all limits": (b"\0\xff\xff\xff\xff", {}, 8, "4294967295"),
    "a timeout without a unit": (framed(b""), {"grpc_timeout": "100"}, 3, "grpc-timeout"),
    "a timeout of nine digits": (framed(b""), {"grpc_timeout": "123456789S"}, 3, "grpc-timeout"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_are_none_are_named(attacked: ServerProcess, name: str) -> None:
    data, fields, status, text = FRAMES[name]
    with Http2Connection(attacked.grpc) as connection:
        stream = connection.open(grpc_headers(**fields))
        connection.send(stream, data)
        answer = connection.answer(stream)
    assert answer.grpc_status == status, answer
    assert text in answer.grpc_text


@pytest.mark.parametrize("name", ["half a prefix", "half a message", "unknown flag", "a length beyond all limits"])
def test_a_broken_frame_ends_a_stream_after_what_came_before(attacked: ServerProcess, name: str) -> None:
    data, _, status, _ = FRAMES[name]
    with Http2Connection(attacked.grpc) as connection:
        stream = connection.open(grpc_headers("/inference.GRPCInferenceService/ModelStreamInfer"))
        connection.send(stream, framed(MESSAGES["raw"]) + data)
        answer = connection.answer(stream)
    assert len(answer.messages()) == 1
    assert answer.grpc_status == status
