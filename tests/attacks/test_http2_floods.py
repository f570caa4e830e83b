"""Frames that cost the sender nothing: whoever sends too many of them is closed, and others notice nothing."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, is_closed_within
from tests.attacks.harness.good import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header_block,
)
from tests.raw_http import connected, open_socket
from tests.raw_http2 import INFER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

PRIORITY, CONTINUATION, UNKNOWN = 2, 9, 0xEE
BURST = 1_000
WRITE_LIMIT_S = 10.0
PADDED = 8
ONE = struct.pack(">I", 1)
# Frames of each kind, one burst; those with streams are made anew for each burst.
CONTROL: dict[str, bytes] = {
    "PING": frame(PING, 0, 0, bytes(8)),
    "answers to no PING": frame(PING, ACK, 0, bytes(8)),
    "SETTINGS": frame(SETTINGS, 0, 0),
    "full SETTINGS": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535) * 20),
    "answers to no SETTINGS": frame(SETTINGS, ACK, 0),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 0, ONE),
    "PRIORITY": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
    "unknown": frame(UNKNOWN, 0, 0),
}


def flood(aim: Aim, name: str, opening: bytes, burst: Callable[[int], bytes]) -> Tally:
    """Sends bursts until the server closes the connection, at most `size` frames."""
    tally = Tally()
    with connected(aim.grpc) as opened:
        opened.settimeout(WRITE_LIMIT_S)
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0) + opening)
        outcome = f"{name}: never closed"
        try:
            for index in range(aim.size // BURST):
                sent = burst(index)
                opened.sendall(sent)
                tally.sent_bytes += len(sent)
                tally.requests += 1
                _read_away(opened)
            # All of it may lie in the sockets' buffers before the first word of the end is there.
            outcome = "closed" if is_closed_within(opened, WRITE_LIMIT_S) else outcome
        except TimeoutError:
            outcome = f"{name}: not read"
        except OSError:
            outcome = "closed"
        tally.outcomes[outcome] += 1
    tally.held_bytes = 1 << 20
    return tally


def _read_away(opened: socket.socket) -> None:
    """Takes what the server says, so that only its own sense of measure ends the flood."""
    opened.settimeout(0)
    try:
        with suppress(BlockingIOError):
            while True:
                if not opened.recv(1 << 16):
                    raise ConnectionError("closed")
    finally:
        opened.settimeout(WRITE_LIMIT_S)


def control_frames(aim: Aim) -> Tally:
    total = Tally()
    for name, one in CONTROL.items():
        _add(total, flood(aim, name, b"", lambda _, one=one: one * BURST))  # type: ignore[misc]
    return total


def frames_of_a_stream(aim: Aim) -> Tally:
    """Frames within one open request that carry nothing."""
    total = Tally()
    opening = frame(HEADERS, END_HEADERS, 1, header_block(INFER))
    kinds = {
        "empty DATA": frame(DATA, 0, 1),
        "padding alone": frame(DATA, PADDED, 1, b"\x05" + bytes(5)),
        "WINDOW_UPDATE of a stream": frame(WINDOW_UPDATE, 0, 1, ONE),
        "PRIORITY of a stream": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
        "unknown of a stream": frame(UNKNOWN, 0, 1),
    }
    for name, one in kinds.items():
        _add(total, flood(aim, name, opening, lambda _, one=one: one * BURST))  # type: ignore[misc]
    return total


def streams_that_end_at_once(aim: Aim) -> Tally:
    """Requests that are taken back, by the client or by a fault that makes the server take them back."""
    total = Tally()
    block = header_block(INFER)
    cancel = struct.pack(">I", 8)

    def of(*frames: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def burst(index: int) -> bytes:
            first = 1 + 2 * index * (BURST // 10)
            streams = range(first, first + 2 * (BURST // 10), 2)
            return b"".join(make(stream) for stream in streams for make in frames)

        return burst

    def opened(stream: int) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, block)

    kinds = {
        "rapid reset": of(opened, lambda stream: frame(RESET, 0, stream, cancel)),
        "reset after an end": of(
            lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, block),
            lambda stream: frame(RESET, 0, stream, cancel),
        ),
        "windows that overflow": of(
            opened, lambda stream: frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 2**31 - 1)) * 2
        ),
        "windows that grow by nothing": of(opened, lambda stream: frame(WINDOW_UPDATE, 0, stream, bytes(4))),
        "data after an end": of(
            lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, block),
            lambda stream: frame(DATA, 0, stream, b"a"),
        ),
        "a stream that needs itself": of(
            opened, lambda stream: frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 1))
        ),
    }
    for name, burst in kinds.items():
        _add(total, flood(aim, name, b"", burst))
    return total


def many_fields(aim: Aim) -> Tally:
    """1,500 fields of one byte each, by the table; refused, as often as the client asks."""
    # :method POST, :scheme http, :path /, then accept-encoding over and over.
    block = b"\x83\x86\x84" + b"\x90" * 1_500
    tally = Tally()
    with open_socket(aim.grpc) as opened:
        opened.settimeout(WRITE_LIMIT_S)
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0))
        try:
            for index in range(aim.size):
                sent = frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * index, block)
                opened.sendall(sent)
                tally.add("sent", len(sent))
                _read_away(opened)
                time.sleep(0.0005)
        except OSError:
            tally.outcomes["closed"] += 1
    return tally


def _add(total: Tally, more: Tally) -> None:
    total.requests += more.requests
    total.sent_bytes += more.sent_bytes
    total.held_bytes = max(total.held_bytes, more.held_bytes)
    total.outcomes += more.outcomes


@pytest.mark.parametrize("attack", [control_frames, frames_of_a_stream, streams_that_end_at_once])
def test_a_flood_ends_its_connection(make_field: MakeField, attack: Attack) -> None:
    field = make_field()
    name = f"HTTP/2 floods, {attack.__name__.replace('_', ' ')}"
    field.attack(name, attack, size=field.scale.pick(200_000, 1_000_000), allowed={"closed"}, cpu_slack_s=5)


def test_many_fields_cost_little(make_field: MakeField) -> None:
    field = make_field()
    field.attack("HTTP/2 headers of 1,500 fields", many_fields, size=field.scale.pick(500, 5_000))
