"""Headers that announce large bodies which do not come: they hold nothing that others need."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome
from tests.attacks.harness.good import END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, header_block, literals
from tests.raw_http import connected, head
from tests.raw_http2 import INFER
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

BODY_BYTES = 64 << 20
BUDGET_BYTES = 256 << 20
FLAGS = ("--byte-budget", str(BUDGET_BYTES))
TARGET = "/v2/models/identity_FP32/infer"
HONEST = Inference("identity_FP32", [Tensor.of("x", np.ones((1, 250_000), np.float32), "FP32")])
TRICKLE_S = 0.5


def http1(aim: Aim) -> Tally:
    return _hold(aim, aim.http, head("POST", TARGET, {"content-length": str(BODY_BYTES)}) + b"{")


def grpc(aim: Aim) -> Tally:
    opening = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, header_block(INFER))
    return _hold(aim, aim.grpc, opening + frame(0, 0, 1, struct.pack(">BI", 0, BODY_BYTES)))


def http2(aim: Aim) -> Tally:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", TARGET), (":authority", "test")]
    block = literals([*fields, ("content-length", str(BODY_BYTES))])
    return _hold(aim, aim.http, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block))


def _hold(aim: Aim, address: str, opening: bytes) -> Tally:
    """Opens and holds `size` bodies of 64 MiB, and asks meanwhile for a megabyte as anybody would."""
    tally = Tally()
    body, fields = HONEST.body()
    named = {name.replace("-", "_"): value for name, value in fields.items()}
    message = HONEST.message()
    with ExitStack() as stack:
        held = [stack.enter_context(connected(address)) for _ in range(aim.size)]
        for opened in held:
            opened.sendall(opening)
            tally.add("held", len(opening))
        for _ in range(4):
            time.sleep(TRICKLE_S)
            for opened in held:
                with suppress(OSError):
                    opened.sendall(b" " if address == aim.http and not opening.startswith(PREFACE) else b"")
            tally.add("honest " + http_outcome(aim.http, "POST", HONEST.target, body, **named), len(body), len(body))
            tally.add("honest " + grpc_outcome(aim.grpc, message), len(message), len(message))
    return tally


@pytest.mark.parametrize("attack", [http1, grpc, http2])
def test_announced_bodies_hold_nothing(make_field: MakeField, attack: Attack) -> None:
    field = make_field(None, *FLAGS)
    name = f"body holders, {attack.__name__}"
    field.attack(name, attack, size=field.scale.pick(16, 216), allowed={"held", "honest ok"})
