"""HTTP/1.1 in small pieces and in crowds: pipelines that nobody reads, chunks of a byte, extensions, trailers."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, raw_outcome
from tests.raw_http import connected, head
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

TARGET = "/v2/models/identity_FP32/infer"
CHUNKED = {"transfer-encoding": "chunked"}
ALLOWED = {"ok", "invalid_argument", "too_large", "headers_too_large", "closed", "slow_client", "unread", "400", "431"}
CONNECTIONS = 20
READ_S = 2.0


def pieces(aim: Aim) -> Tally:
    tally = Tally()
    size = aim.size
    bodies = {
        "chunks of a byte": b"1\r\n \r\n" * (size // 6),
        "chunks with extensions": (b"1;" + b"e" * 200 + b"\r\n \r\n") * (size // 210),
        "one long extension": b"1;" + b"e" * size + b"\r\n \r\n",
        "a long size": b"0" * size + b"1\r\n \r\n",
        "trailers": b"0\r\n" + b"t: u\r\n" * (size // 6),
    }
    for body in bodies.values():
        sent = head("POST", TARGET, CHUNKED) + body + b"0\r\n\r\n"
        tally.add(raw_outcome(aim.http, sent), len(sent))
    fields = b"".join(b"f%d: v\r\n" % index for index in range(size // 12))
    for start in (b"GET /v2 HTTP/1.1\r\nhost: a\r\n", b"GET /v2 HTTP/1.1\r\nhost: a\r\nx: " + b"y" * size + b"\r\n"):
        sent = start + fields + b"\r\n"
        tally.add(raw_outcome(aim.http, sent, "GET"), len(sent))
    sent = b"GET /" + b"p" * size + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    tally.add(raw_outcome(aim.http, sent, "GET"), len(sent))
    tally.add(raw_outcome(aim.http, b"\r\n" * (size // 2), "GET"), size)
    return tally


def pipelines(aim: Aim) -> Tally:
    """Requests without end on connections that read nothing: the server stops reading, too."""
    body, fields = Inference("identity_FP32", [Tensor("x", "FP32", (1, 1_000), bytes(4_000))]).body()
    inference = head("POST", TARGET, {**fields, "content-length": str(len(body))}) + body
    tally = Tally()
    with ExitStack() as stack:
        for index in range(CONNECTIONS):
            opened = stack.enter_context(connected(aim.http))
            opened.settimeout(0.2)
            request = inference if index % 2 else head("GET", "/v2/models/stats")
            with suppress(OSError):
                while tally.sent_bytes < aim.size * (index + 1):
                    opened.sendall(request * 16)
                    tally.sent_bytes += len(request) * 16
                    tally.requests += 16
            tally.outcomes["unread"] += 1
        time.sleep(READ_S)
    # What the kernel holds is not the server's.
    tally.held_bytes = tally.sent_bytes
    return tally


@pytest.mark.parametrize("attack", [pieces, pipelines])
def test_pieces_cost_what_their_bytes_cost(make_field: MakeField, attack: Attack) -> None:
    field = make_field()
    size = field.scale.pick(1 << 20, 8 << 20)
    field.attack(f"HTTP/1.1, {attack.__name__}", attack, size=size, allowed=ALLOWED, cpu_slack_s=2)
