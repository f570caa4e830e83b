"""Small requests whose answers are work for the server itself: texts, classes, compression, streams nobody reads."""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness import models
from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome
from tests.attacks.harness.good import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, header_block
from tests.raw_http import connected
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

BUDGET_BYTES = 256 << 20
FLAGS = ("--byte-budget", str(BUDGET_BYTES), "--max-response-bytes", str(64 << 20))
ALLOWED = {"ok", "invalid_argument", "too_large", "out_of_budget", "deadline_exceeded", "internal"}
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
MESSAGES = 50


def _asked(count: int, **parameters: int) -> Inference:
    outputs = {"y": parameters} if parameters else {}
    return Inference("filled", [Tensor.of("count", np.array([count]), "INT64")], outputs=outputs)


def texts(aim: Aim) -> Tally:
    """Answers in JSON: numbers become texts."""
    return _over_http(aim, _asked(aim.size))


def classes(aim: Aim) -> Tally:
    """Answers that are sorted, and become texts."""
    tally = _over_http(aim, _asked(1_000_000, classification=1_000_000))
    message = _asked(1_000_000, classification=1_000_000).message()
    tally.add(grpc_outcome(aim.grpc, message), len(message))
    return tally


def compressed(aim: Aim) -> Tally:
    """Answers that are to be compressed."""
    return _over_http(aim, _asked(aim.size, binary_data=1), accept_encoding="gzip")


def _over_http(aim: Aim, inference: Inference, **fields: str) -> Tally:
    tally = Tally()
    body, described = inference.body()
    named = {name.replace("-", "_"): value for name, value in described.items()}
    for _ in range(4):
        tally.add(http_outcome(aim.http, "POST", inference.target, body, **named, **fields), len(body))
    return tally


def streams(aim: Aim) -> Tally:
    """Streams of requests whose answers nobody reads."""
    tally = Tally()
    message = _asked(aim.size // 16).message()
    framed = struct.pack(">BI", 0, len(message)) + message
    with connected(aim.grpc) as opened:
        opened.settimeout(10)
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0))
        with suppress(OSError):
            for stream in range(1, 2 * MESSAGES, 2):
                opened.sendall(frame(HEADERS, END_HEADERS, stream, header_block(STREAM)))
                opened.sendall(frame(DATA, 0, stream, framed) * MESSAGES)
                tally.requests += MESSAGES
                tally.sent_bytes += MESSAGES * len(framed)
            time.sleep(3)
    tally.held_bytes = tally.sent_bytes
    return tally


@pytest.mark.parametrize("attack", [texts, classes, compressed, streams])
def test_answers_that_are_work_stay_in_the_budget(make_field: MakeField, attack: Attack) -> None:
    field = make_field({"filled": models.filled()}, *FLAGS)
    field.attack(
        f"answers, {attack.__name__}",
        attack,
        size=field.scale.pick(2_000_000, 8_000_000),
        allowed=ALLOWED,
        memory_slack=BUDGET_BYTES + (64 << 20),
        cpu_slack_s=10,
    )
