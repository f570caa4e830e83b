"""More models than fit, and callers who want them all at once: each stays for a while once it is there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs
from tests.attacks.harness.aim import Aim, Tally, grpc_outcome
from tests.oracle import metric
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

BALLAST = 1 << 20
# Room for one of the two, beside the good client's.
FLAGS = ("--model-memory-bytes", str(3 << 19), "--set", "models.identity_FP32.pin=true")


def two_callers(aim: Aim) -> Tally:
    """Each asks for a model of its own, one request after the other."""
    tally = Tally()

    def ask(name: str) -> None:
        tensor = Tensor.of("x", np.ones((1, 2), np.float32), "FP32")
        message = Inference(name, [tensor]).message()
        for _ in range(aim.size):
            tally.add(grpc_outcome(aim.grpc, message), len(message))

    callers = [threading.Thread(target=ask, args=[name]) for name in ("a", "b")]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return tally


def test_two_callers_do_not_make_models_come_and_go_with_each_request(make_field: MakeField) -> None:
    field = make_field({"a": graphs.times(2, BALLAST), "b": graphs.times(3, BALLAST)}, *FLAGS)
    before = metric(field.server, "mlserve_model_loads_total")
    size = field.scale.pick(40, 400)
    figures = field.attack("models on demand", two_callers, size=size, cpu_slack_s=30)
    loads = metric(field.server, "mlserve_model_loads_total") - before
    assert loads <= figures.tally.requests / 4, f"{loads} loads for {figures.tally.requests} requests"
