"""Floods that HTTP/2 makes cheap: each ends its own connection at the latest, while others are answered."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hpack import Encoder

from tests.oracle import Oracle, resident_bytes
from tests.raw_http2 import FRAME_HEAD_BYTES, Ended, Http2Answer, Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

SOUND = Inference("identity_FP32", [Tensor("x", "FP32", (1, 2), bytes(8))]).message()
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 0, 1, 2, 3, 4, 6, 8, 9, 99
GOAWAY, END_STREAM, END_HEADERS, ACK = 7, 1, 4, 1
ENHANCE_YOUR_CALM = 11
FRAMES = 20_000
ANSWER_LIMIT_S = 5.0
GROWTH_BYTES = 16 << 20


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def rapid_reset(connection: Http2Connection) -> None:
    for _ in range(2_000):
        stream = connection.open(grpc_headers())
        connection.socket.sendall(frame(RESET, stream, struct.pack(">I", 8)))
        connection.h2.reset_stream(stream)
        connection.h2.data_to_send()


def pings(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(PING, 0, bytes(8)) * 100)


def settings(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(SETTINGS, 0) * 100)


def empty_data(connection: Http2Connection) -> None:
    stream = connection.open(grpc_headers())
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(DATA, stream) * 100)


def continuations(connection: Http2Connection) -> None:
    # A literal field, over and over, and never the end of the header.
    field = b"\x00\x01a\x01b" * 200
    connection.socket.sendall(frame(HEADERS, 1, field))
    for _ in range(FRAMES // 10):
        connection.socket.sendall(frame(CONTINUATION, 1, field))


def padding(connection: Http2Connection) -> None:
    stream = connection.open(grpc_headers())
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(DATA, stream, b"\x64" + bytes(100), 8) * 100)


def window_updates(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(WINDOW_UPDATE, 0, struct.pack(">I", 1)) * 100)


def unknown_frames(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(UNKNOWN, 0, b"anything") * 100)


def priorities(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(PRIORITY, 1, struct.pack(">IB", 0, 9)) * 100)


def acknowledgements(connection: Http2Connection) -> None:
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(PING, 0, bytes(8), ACK) * 100)


def bytes_of_a_body(connection: Http2Connection) -> None:
    stream = connection.open(grpc_headers())
    connection.socket.sendall(frame(DATA, stream, framed(bytes(4 * FRAMES))[:5]))
    for _ in range(FRAMES // 100):
        connection.socket.sendall(frame(DATA, stream, b"x") * 100)


def refused_streams(connection: Http2Connection) -> None:
    block = connection.h2.encoder.encode(grpc_headers())
    for stream in range(1, 2 * FRAMES // 10, 2):
        connection.socket.sendall(frame(HEADERS, stream, block, END_HEADERS))


def many_fields(connection: Http2Connection) -> None:
    block = Encoder().encode([*grpc_headers(), *((f"x-{number}", "1") for number in range(1_500))])
    for stream in range(1, 400, 2):
        connection.socket.sendall(frame(HEADERS, stream, block, END_HEADERS | END_STREAM))


def huge_frame(connection: Http2Connection) -> None:
    connection.socket.sendall(b"\xff\xff\xff" + struct.pack(">BBI", DATA, 0, 1) + bytes(1_000))


def data_on_no_stream(connection: Http2Connection) -> None:
    connection.socket.sendall(frame(DATA, 0, b"abc") + frame(DATA, 77, b"abc"))


def goaway_at_the_end(connection: Http2Connection) -> int | None:
    """Reads until the server closes the connection; the code of its GOAWAY, if that came."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.socket.recv(1 << 16):
            received += piece
    code = None
    while len(received) >= FRAME_HEAD_BYTES:
        length = FRAME_HEAD_BYTES + int.from_bytes(received[:3], "big")
        if received[3] == GOAWAY:
            code = int.from_bytes(received[FRAME_HEAD_BYTES + 4 : FRAME_HEAD_BYTES + 8], "big")
        received = received[length:]
    return code


FLOODS: list[Callable[[Http2Connection], None]] = [
    rapid_reset,
    pings,
    settings,
    window_updates,
    unknown_frames,
    priorities,
    acknowledgements,
    bytes_of_a_body,
    refused_streams,
    many_fields,
]
ATTACKS: list[Callable[[Http2Connection], None]] = [
    *FLOODS,
    empty_data,
    continuations,
    padding,
    huge_frame,
    data_on_no_stream,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_and_others_are_answered(
    attacked: ServerProcess, attack: Callable[[Http2Connection], None]
) -> None:
    before = resident_bytes(attacked)
    # An attacker does not wait for answers, and finds the connection closed at some point.
    with Http2Connection(attacked.grpc) as connection:
        connection.socket.settimeout(ANSWER_LIMIT_S)
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            attack(connection)
        begun = time.monotonic()
        Oracle(attacked).check_neighbour()
        assert time.monotonic() - begun < 12 * ANSWER_LIMIT_S
    assert resident_bytes(attacked) - before < GROWTH_BYTES


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection(attacked: ServerProcess, flood: Callable[[Http2Connection], None]) -> None:
    with Http2Connection(attacked.grpc) as connection:
        connection.socket.settimeout(ANSWER_LIMIT_S)
        with suppress(Ended, BrokenPipeError, ConnectionResetError):
            flood(connection)
        # A peer that goes on writing may find the connection gone before it reads why.
        assert goaway_at_the_end(connection) in {None, ENHANCE_YOUR_CALM}


def test_a_client_that_pings_and_updates_its_windows_is_served_on(attacked: ServerProcess) -> None:
    # As gRPC's C core does with each answer.
    chatter = frame(PING, 0, bytes(8)) + frame(WINDOW_UPDATE, 0, struct.pack(">I", 1)) * 2 + frame(SETTINGS, 0)
    with Http2Connection(attacked.grpc) as connection:
        for _ in range(1_000):
            stream = connection.open(grpc_headers())
            connection.send(stream, framed(SOUND))
            assert connection.answer(stream).grpc_status == 0
            connection.socket.sendall(chatter)
        assert connection.goaway is None


@pytest.mark.parametrize("over", ["grpc", "rest"])
def test_a_header_of_too_many_fields_is_told_so(attacked: ServerProcess, over: str) -> None:
    first = grpc_headers() if over == "grpc" else grpc_headers()[:4]
    with Http2Connection(attacked.grpc) as connection:
        stream = connection.open([*first, *((f"x-{number}", "1") for number in range(150))])
        connection.send(stream, framed(SOUND))
        answer = connection.answer(stream)
        assert answer.code == "headers_too_large"
        assert (answer.grpc_status, answer.headers[":status"]) in {(8, "200"), (None, "431")}
        if over == "grpc":
            assert answer.grpc_text.endswith("at most 100 are allowed (limits.max_headers)")
        again = connection.open(grpc_headers())
        connection.send(again, framed(SOUND))
        assert connection.answer(again).grpc_status == 0


@pytest.mark.parametrize("authority", ["127.0.0.1:8001,127.0.0.1:8002", "/run/mlserve.sock", "a b", "unix:/tmp/x"])
def test_an_authority_that_is_none_is_served(attacked: ServerProcess, authority: str) -> None:
    headers = [(name, authority if name == ":authority" else value) for name, value in grpc_headers()]
    with Http2Connection(attacked.grpc) as connection:
        encoder = Encoder()
        for _ in range(3):
            # Spelled out the first time, from the header compression's table afterwards.
            block = encoder.encode(headers, huffman=False)
            stream = connection.h2.get_next_available_stream_id()
            connection.h2.send_headers(stream, grpc_headers())
            connection.answers[stream] = Http2Answer()
            connection.h2.clear_outbound_data_buffer()
            connection.socket.sendall(frame(HEADERS, stream, block, END_HEADERS))
            connection.send(stream, framed(SOUND))
            assert connection.answer(stream).grpc_status == 0


def test_a_stream_that_is_reset_is_not_answered_and_the_next_one_is(attacked: ServerProcess) -> None:
    with Http2Connection(attacked.grpc) as connection:
        first = connection.open(grpc_headers())
        connection.h2.reset_stream(first)
        connection.flush()
        second = connection.open(grpc_headers())
        connection.send(second, framed(SOUND))
        assert connection.answer(second).grpc_status == 0
        assert not connection.answers[first].headers


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "POST")],
        [*grpc_headers(), (":path", "/twice")],
        [*grpc_headers(), ("connection", "close")],
        [("x", "before"), *grpc_headers()],
    ],
    ids=["no path", "two paths", "connection", "late pseudo field"],
)
def test_a_malformed_header_resets_its_stream_only(attacked: ServerProcess, headers: list[tuple[str, str]]) -> None:
    with Http2Connection(attacked.grpc) as connection:
        bad = connection.open(headers, end=True)
        answer = connection.answer(bad)
        assert answer.reset is not None or answer.headers[":status"] == "400", answer
        good = connection.open(grpc_headers())
        connection.send(good, framed(SOUND))
        assert connection.answer(good).grpc_status == 0


@pytest.mark.parametrize("field", [("Upper-Case", "a"), ("x", "a\r\nb"), ("", "a"), ("x y", "a")], ids=str)
def test_a_field_that_is_none_ends_its_connection_at_most(attacked: ServerProcess, field: tuple[str, str]) -> None:
    with Http2Connection(attacked.grpc) as connection:
        bad = connection.open([*grpc_headers(), field], end=True)
        with suppress(Ended):
            answer = connection.answer(bad)
            assert answer.reset is not None or answer.headers[":status"] == "400", answer
    Oracle(attacked).check_neighbour()
