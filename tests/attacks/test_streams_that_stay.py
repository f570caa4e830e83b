"""Streams that are made to stay open, in crowds: each costs little while nothing happens."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally
from tests.attacks.harness.good import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    header_block,
)
from tests.attacks.harness.process import cpu_s
from tests.raw_http import connected

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

STREAMS = 100
# Connections, as `make test` has them.
SMALL = 50
QUIET_S = 2.0
# Of one core, for ten thousand streams on which nothing happens.
IDLE_SHARE = 0.1
HEALTH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


def watchers(aim: Aim) -> Tally:
    return _stay(aim, HEALTH, b"", END_STREAM)


def reflections(aim: Aim) -> Tally:
    return _stay(aim, REFLECTION, b"\x3a\x01*", 0)


def inferences(aim: Aim) -> Tally:
    return _stay(aim, INFER, None, 0)


def _stay(aim: Aim, path: str, message: bytes | None, flags: int) -> Tally:
    tally = Tally()
    data = b"" if message is None else struct.pack(">BI", 0, len(message)) + message
    block = header_block(path)
    with ExitStack() as stack:
        for _ in range(aim.size):
            opened = stack.enter_context(connected(aim.grpc))
            sent = PREFACE + frame(SETTINGS, 0, 0)
            for stream in range(1, 2 * STREAMS, 2):
                sent += frame(HEADERS, END_HEADERS, stream, block)
                sent += frame(DATA, flags, stream, data) if data else b""
            opened.sendall(sent)
            tally.requests += STREAMS
            tally.sent_bytes += len(sent)
        time.sleep(QUIET_S)
        used = cpu_s(aim.pid)
        time.sleep(QUIET_S)
        # The good client's own requests are in it: some hundred a second.
        share = (cpu_s(aim.pid) - used) / QUIET_S
        allowed = IDLE_SHARE * max(1.0, aim.size * STREAMS / 10_000)
        # A share of time says something of the release, on a quiet machine.
        is_quiet = aim.size <= SMALL or share < 0.25 + allowed
        tally.outcomes["quiet" if is_quiet else f"{share:.2f} cores for nothing"] += 1
    tally.held_bytes = tally.sent_bytes
    return tally


@pytest.mark.parametrize("attack", [watchers, reflections, inferences])
def test_streams_that_stay_cost_little(make_field: MakeField, attack: Attack) -> None:
    field = make_field()
    name = f"streams that stay, {attack.__name__}"
    field.attack(name, attack, size=field.scale.pick(SMALL, 200), allowed={"quiet"}, cpu_slack_s=5)
