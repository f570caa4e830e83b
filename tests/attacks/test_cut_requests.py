"""Requests that claim many rows and carry few bytes, and honest ones of many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness.aim import Aim, Tally, ask_both_ways, http_outcome
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

MODEL = "identity_FP32"
HONEST_ROWS = 300_000
SHAPES = [(100_000_000, 0), (2**31, 0), (2**40, 0), (2**62, 0), (2**63 - 1, 0), (0, 2**62), (2**32, 2**32)]


def rows_without_bytes(aim: Aim) -> Tally:
    tally = Tally()
    for _ in range(aim.size):
        for shape in SHAPES:
            inference = Inference(MODEL, [Tensor("x", "FP32", shape)])
            ask_both_ways(tally, aim, inference)
    return tally


def test_rows_without_bytes_cost_what_bytes_cost(make_field: MakeField) -> None:
    field = make_field()
    field.attack("rows without bytes", rows_without_bytes, size=field.scale.pick(1, 10))


def test_many_honest_rows_are_answered_in_one_request(make_field: MakeField) -> None:
    field = make_field()
    values = np.arange(HONEST_ROWS, dtype=np.float32).reshape(-1, 1)
    inference = Inference(MODEL, [Tensor.of("x", values, "FP32")], parameters={"binary_data_output": True})
    over_grpc = grpc_call(field.server.grpc, inference.message())
    assert over_grpc.grpc_status == 0, over_grpc.grpc_text
    assert over_grpc.messages()[0].endswith(values.tobytes())
    body, fields = inference.body()
    named = {name.replace("-", "_"): value for name, value in fields.items()}
    assert http_outcome(field.server.http, "POST", inference.target, body, **named) == "ok"
