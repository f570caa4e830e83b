"""Thousands of models: what lists them all is bounded, and nobody waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome
from tests.attacks.harness.models import filled

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.field import Scale

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

SCRAPERS = 10
# Nothing is loaded but what is asked for: the list is what counts.
FLAGS = ("--model-memory-bytes", "100000", "--set", "models.identity_FP32.pin=true")


def scrape(aim: Aim) -> Tally:
    """Everything that lists everything, asked for by ten at once."""
    tally = Tally()

    def ask() -> None:
        tally.add("index " + http_outcome(aim.http, "POST", "/v2/repository/index"), 100)
        tally.add("openapi " + http_outcome(aim.http, "GET", "/openapi.json"), 100)
        tally.add("statistics " + http_outcome(aim.http, "GET", "/v2/models/stats"), 100)
        rpc = "/inference.GRPCInferenceService/ModelStatistics"
        tally.add("ModelStatistics " + grpc_outcome(aim.grpc, b"", rpc), 100)
        tally.add("metrics " + http_outcome(aim.metrics, "GET", "/metrics"), 100)

    callers = [threading.Thread(target=ask) for _ in range(SCRAPERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # The lists themselves, ten at once.
    tally.declared_bytes = SCRAPERS * 40_000 * aim.size
    return tally


def test_lists_of_many_models_hold_up_nobody(make_field: MakeField, scale: Scale) -> None:
    file, count = filled(), scale.pick(300, 10_000)
    field = make_field({f"model-{index}": file for index in range(count)}, *FLAGS)
    field.attack("many models", scrape, size=count, cpu_slack_s=30)
