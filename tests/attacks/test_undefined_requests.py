"""Requests that ONNX does not define: refused, and the model goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness.aim import Aim, Tally, ask_both_ways, grpc_outcome
from tests.graphs import constant, model, node, value
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

COLUMNS, HIDDEN = 4, 2
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "gru": [(0, 1, COLUMNS), (1, 0, COLUMNS), (0, 0, COLUMNS)],
    "lstm": [(0, 1, COLUMNS), (1, 0, COLUMNS), (0, 0, COLUMNS)],
    "upscale": [(1, 1, 0, 0), (0, 1, 2, 2), (1, 1, 0, 3)],
}


def recurrent(operation: str, gates: int) -> bytes:
    weights = constant("w", np.full((1, gates * HIDDEN, COLUMNS), 0.5, np.float32))
    again = constant("r", np.full((1, gates * HIDDEN, HIDDEN), 0.5, np.float32))
    inputs = [value("x", "FP32", ["steps", "rows", COLUMNS])]
    outputs = [value("y", "FP32", ["steps", 1, "rows", HIDDEN])]
    return model([node(operation, ["x", "w", "r"], ["y"], hidden_size=HIDDEN)], inputs, outputs, [weights, again])


def upscale() -> bytes:
    weights = constant("w", np.ones((1, 1, 2, 2), np.float32))
    inputs = [value("x", "FP32", ["rows", 1, "height", "width"])]
    outputs = [value("y", "FP32", ["rows", 1, "taller", "wider"])]
    return model([node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], inputs, outputs, [weights])


def without_elements(aim: Aim) -> Tally:
    tally = Tally()
    for name, shapes in SHAPES.items():
        for shape in shapes:
            inference = Inference(name, [Tensor("x", "FP32", shape)])
            ask_both_ways(tally, aim, inference)
    return tally


def test_tensors_without_elements_are_refused_where_they_mean_nothing(make_field: MakeField) -> None:
    field = make_field({"gru": recurrent("GRU", 3), "lstm": recurrent("LSTM", 4), "upscale": upscale()})
    field.attack("tensors without elements", without_elements, allowed={"invalid_argument"})
    for name in SHAPES:
        shape = (1, 1, 2, 2) if name == "upscale" else (3, 2, COLUMNS)
        sound = Tensor.of("x", np.ones(shape, np.float32), "FP32")
        assert grpc_outcome(field.server.grpc, Inference(name, [sound]).message()) == "ok"
