"""Small requests with large answers: refused by name, inside budget and arena, and the model goes on answering others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness import models
from tests.attacks.harness.aim import Aim, Tally, ask_both_ways
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

ARENA_BYTES = 256 << 20
BUDGET_BYTES = 128 << 20
FLAGS = ("--arena-bytes", str(ARENA_BYTES), "--byte-budget", str(BUDGET_BYTES), "--max-body-bytes", str(8 << 20))
COUNTS = [40_000_000, 900_000_000, 2**40, 2**62, 2**63 - 1, -1]
# Refusals, none of which says "later"; what the arena refuses is told as the run's failure.
REFUSED = {"invalid_argument", "too_large", "out_of_budget", "internal", "deadline_exceeded"}


def asked(model: str, count: int) -> Inference:
    return Inference(model, [Tensor.of("count", np.array([count]), "INT64")])


def bombs(aim: Aim) -> Tally:
    tally = Tally()
    for count in COUNTS[: aim.size]:
        # A loop of 2^62 turns is a matter of time, not of memory: another family.
        for model in [name for name in models.BOMBS if name != "collected" or count < 1e9]:
            rows = count // 1024 if model == "collected" else count
            inference = asked(model, rows)
            ask_both_ways(tally, aim, inference)
    return tally


def test_large_answers_stay_inside_budget_and_arena_and_nobody_is_poisoned(make_field: MakeField) -> None:
    field = make_field({name: make() for name, make in models.BOMBS.items()}, *FLAGS)
    field.attack(
        "output bombs",
        bombs,
        size=len(COUNTS),
        allowed=REFUSED | {"ok"},
        memory_slack=ARENA_BYTES + BUDGET_BYTES + (48 << 20),
        cpu_slack_s=20,
    )
    for model in models.BOMBS:
        answer = grpc_call(field.server.grpc, asked(model, 5).message())
        assert answer.grpc_status == 0, f"{model} refuses what is small after what was large: {answer.grpc_text}"


def test_a_refused_answer_names_the_setting(make_field: MakeField) -> None:
    field = make_field({"ranged": models.ranged()}, *FLAGS)
    for _ in range(3):
        answer = grpc_call(field.server.grpc, asked("ranged", 900_000_000).message())
        assert answer.code in REFUSED
        settings = ("arena_bytes", "byte_budget", "max_response_bytes")
        assert any(name in answer.grpc_text for name in settings), answer.grpc_text


def test_one_wide_row_does_not_refuse_honest_rows(make_field: MakeField) -> None:
    """A model whose answer is 64 times its request: one of a megabyte, then many of a hundred small rows."""
    field = make_field({"wide": models.wide()}, *FLAGS)

    def ask(rows: int, width: int) -> str | None:
        array = np.ones((rows, width), np.float32)
        answer = grpc_call(field.server.grpc, Inference("wide", [Tensor.of("x", array, "FP32")]).message())
        assert answer.grpc_status is not None
        return "ok" if answer.grpc_status == 0 else answer.code

    assert ask(1, 1_000_000) in {"ok", *REFUSED}
    assert [ask(100, 16) for _ in range(20)] == ["ok"] * 20
