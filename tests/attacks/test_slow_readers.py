"""Readers of large answers that read slowly or not at all: what they hold is bounded, and they are cut."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness import models
from tests.attacks.harness.aim import Aim, Tally
from tests.attacks.harness.good import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header_block,
)
from tests.raw_http import connected
from tests.raw_http2 import INFER
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

# 40 MB of answer for each.
COUNT = 10_000_000
WINDOW = 4
BUDGET_BYTES = 640 << 20
# A quarter of the budget for one connection, one answer beyond it that is being made, and what the runs themselves take.
HELD_BYTES = BUDGET_BYTES // 4 + 160_000_000
SECONDS = 6.0
FLAGS = ("--write-timeout-ms", "2000", "--byte-budget", str(BUDGET_BYTES), "--arena-bytes", str(256 << 20))


def message() -> bytes:
    return Inference("filled", [Tensor.of("count", np.array([COUNT]), "INT64")]).message()


def _call(stream: int) -> bytes:
    sent = message()
    opening = frame(HEADERS, END_HEADERS, stream, header_block(INFER))
    return opening + frame(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(sent)) + sent)


def zero_windows(aim: Aim) -> Tally:
    """Many streams of one connection whose windows stay closed."""
    return _hold(aim, 0, rate=0)


def trickling_windows(aim: Aim) -> Tally:
    """Windows that open by two kilobytes a second: there is progress all the time."""
    return _hold(aim, 0, rate=2_000)


def _hold(aim: Aim, window: int, rate: int) -> Tally:
    tally = Tally()
    with ExitStack() as stack:
        opened = stack.enter_context(connected(aim.grpc))
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, window)))
        streams = range(1, 2 * aim.size, 2)
        outcome = "held to the end"
        try:
            for stream in streams:
                sent = _call(stream)
                opened.sendall(sent)
                tally.add("asked", len(sent))
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(0.1)
                if rate:
                    more = struct.pack(">I", max(1, rate // 10))
                    updates = b"".join(frame(WINDOW_UPDATE, 0, stream, more) for stream in streams)
                    opened.sendall(updates)
                with suppress(TimeoutError):
                    opened.settimeout(0.01)
                    if not opened.recv(4_096):
                        raise ConnectionError
                    opened.settimeout(10)
        except OSError:
            outcome = "closed"
        tally.outcomes[outcome] += 1
    return tally


@pytest.mark.parametrize("attack", [zero_windows, trickling_windows])
def test_answers_that_nobody_reads_are_bounded(make_field: MakeField, attack: Attack) -> None:
    field = make_field({"filled": models.filled()}, *FLAGS)
    name = f"slow readers, {attack.__name__.replace('_', ' ')}"
    field.attack(name, attack, size=field.scale.pick(45, 90), memory_slack=HELD_BYTES, cpu_slack_s=30)
