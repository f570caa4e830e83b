"""Messages made of as many parts as fit: linear time, little memory, and what inflates far counts as what it becomes."""

from __future__ import annotations

import gzip
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, grpc_outcome
from tests.graphs import identity

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

START = b"\x0a\x0eidentity_BYTES"
REFUSED = {"invalid_argument", "too_large", "closed", "out_of_budget", "not_found"}


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    key, size = number << 3 | 2, len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([key]) + length + content


def _names() -> bytes:
    """256 parameters of different names, which later ones would be compared with."""
    return b"".join(_field(4, _field(1, b"name-%d" % index) + _field(2, b"\x10\x01")) for index in range(255))


# What fills a message: a beginning and a piece that is repeated.
CROWDS = {
    "parameters": (START + _names(), b"\x22\x00"),
    "inputs": (START, b"\x2a\x00"),
    "outputs": (START, b"\x32\x00"),
    "raw contents": (START, b"\x3a\x00"),
    "unknown": (START, b"\xf8\x07\x00"),
    "unknown texts": (START, b"\xfa\x07\x00"),
    "groups": (START, b"\xfb\x07\xfc\x07"),
    "names": (START, b"\x0a\x00"),
}


@cache
def crowded(name: str, size: int) -> bytes:
    start, piece = CROWDS[name]
    return start + piece * ((size - len(start)) // len(piece))


@cache
def elements(size: int) -> bytes:
    """One input of empty BYTES elements."""
    contents = b"\x42\x00" * (size // 2)
    # Fewer are declared: only what reads them is asked for here.
    shape = b"\x01\x01"
    named = b"\x0a\x01x\x12\x05BYTES\x1a" + _prefixed(shape)
    inner = named + b"\x2a" + _prefixed(contents)
    return START + b"\x2a" + _varint(len(inner)) + inner


@cache
def nested(size: int) -> bytes:
    """Groups that begin and do not end."""
    return START + b"\xfb\x07" * (size // 2)


@cache
def input_parameters(size: int) -> bytes:
    """Parameters of an input."""
    names = b"".join(b"\x22" + _prefixed(_field(1, b"n%d" % index) + _field(2, b"\x10\x01")) for index in range(255))
    inner = b"\x0a\x01x\x12\x05BYTES" + names + b"\x22\x00" * (size // 2)
    return START + b"\x2a" + _varint(len(inner)) + inner


def _prefixed(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = b""
    while number >= 128:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def crowds(aim: Aim) -> Tally:
    tally = Tally()
    for message in (
        *(crowded(name, aim.size) for name in CROWDS),
        elements(aim.size),
        nested(aim.size),
        input_parameters(aim.size),
    ):
        packed = gzip.compress(message, 6)
        tally.add(grpc_outcome(aim.grpc, packed, is_compressed=True), len(packed))
    return tally


def plain_crowds(aim: Aim) -> Tally:
    tally = Tally()
    for name in CROWDS:
        message = crowded(name, aim.size)
        tally.add(grpc_outcome(aim.grpc, message), len(message))
    return tally


def test_compressed_crowds_cost_what_their_bytes_cost(make_field: MakeField) -> None:
    """What one request of 64 MiB may hold is the declared size of it; nothing more for being in pieces."""
    field = make_field({"identity_BYTES": identity("BYTES")})
    size = field.scale.pick(16 << 20, 60 << 20)
    # The inflated message itself may be held, and one buffer of its growth.
    field.attack("protobuf crowds, gzip", crowds, size=size, allowed=REFUSED, memory_slack=3 * size + (48 << 20))


def test_plain_crowds_cost_what_their_bytes_cost(make_field: MakeField) -> None:
    field = make_field({"identity_BYTES": identity("BYTES")})
    field.attack("protobuf crowds", plain_crowds, size=field.scale.pick(256 << 10, 4 << 20), allowed=REFUSED)
