"""The harness itself: it sees what it is there to see, or every family would pass for nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, grpc_outcome
from tests.attacks.harness.field import SLACK_BYTES, Figures, Scale, check_figures
from tests.attacks.harness.good import Asked
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

FULL = Scale(windows=1, good_requests=1, is_full=True)
CALM = Asked([0.003] * 100)


def figures(beside: Asked = CALM, *, cpu_s: float = 0.1, peak_bytes: int = 0, probes_lost: int = 0) -> Figures:
    tally = Tally(10, 1_000, 1_000, 0, Counter({"ok": 10}))
    return Figures("sample", CALM, beside, tally=tally, cpu_s=cpu_s, peak_bytes=peak_bytes, probes_lost=probes_lost)


def check(found: Figures) -> None:
    check_figures(found, {"ok"}, SLACK_BYTES, 1.0, FULL)


def test_what_an_attack_may_cost_is_no_finding() -> None:
    check(figures())


def test_what_an_attack_on_another_server_costs_too_is_no_finding() -> None:
    found = figures(Asked([0.004] * 100))
    found.elsewhere = Asked([0.0035] * 100)
    check(found)
    found.elsewhere = CALM
    with pytest.raises(AssertionError, match=r"p99 is 1.33 times as long"):
        check(found)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (figures(Asked([0.003], ["refused"])), "the good client failed"),
        (figures(Asked([0.004] * 100)), "p99 is 1.33 times as long"),
        (figures(cpu_s=12.0), "12.0 CPU seconds for 10 requests"),
        (figures(peak_bytes=SLACK_BYTES + 20_000), "MB more"),
        (figures(probes_lost=1), "1 probes of liveness"),
    ],
)
def test_what_an_attack_may_not_do_is_told(found: Figures, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check(found)


def test_an_outcome_that_is_not_allowed_is_told() -> None:
    with pytest.raises(AssertionError, match="outcomes"):
        check_figures(figures(), {"refused"}, SLACK_BYTES, 1.0, FULL)


def sound(aim: Aim) -> Tally:
    """No attack at all."""
    tally = Tally()
    message = Inference("identity_FP32", [Tensor("x", "FP32", (1, 1), bytes(4))]).message()
    for _ in range(aim.size):
        tally.add(grpc_outcome(aim.grpc, message), len(message))
    return tally


@pytest.mark.server
@pytest.mark.timeout(60)
def test_callers_that_do_nothing_bad_are_counted_and_disturb_nobody(make_field: MakeField, scale: Scale) -> None:
    found = make_field().attack("no attack", sound, size=20, allowed={"ok"})
    assert found.tally.outcomes == {"ok": 20 * scale.windows}
    assert len(found.beside.times_s) >= 40
    assert found.cpu_s > 0
