"""Every data type through every foreign client: what comes back is what ONNX Runtime answers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.triton_clients import Asked, Reply
from tests.graphs import ADDED, DATATYPES
from tests.reference import Answered, Place, Reference, check_batches
from tests.tensors_at_random import finite

pytestmark = pytest.mark.server

Ask = Callable[[Asked], Reply]
# Ordinary, one row, no rows, rows without elements.
SHAPES = [(3, 4), (1, 1), (0, 4), (2, 0)]
# The protocol has no JSON form of these.
BINARY_ONLY = ("FP16", "BF16")


def checked(ask: Ask, reference: Reference, asked: Asked) -> None:
    """Asks, and holds the answer against the runtime on the batch that the server says it ran."""
    reply = ask(asked)
    assert set(reply.arrays) == set(reference.outputs)
    check_batches(reference, [Answered(asked.inputs, reply.arrays, Place.of(reply.parameters))])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_tensor_comes_back_as_it_was_sent(
    ask: Ask, graph_folder: Path, datatype: str, shape: tuple[int, ...]
) -> None:
    model = f"identity_{datatype}"
    inputs = {"x": finite(np.random.default_rng(1), datatype, shape)}
    checked(ask, Reference(graph_folder / model / "1" / "model.onnx"), Asked(model, inputs, {"x": datatype}))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_two_inputs_are_joined(ask: Ask, graph_folder: Path, datatype: str) -> None:
    model = f"concat_{datatype}"
    rng = np.random.default_rng(2)
    inputs = {"a": finite(rng, datatype, (3, 2)), "b": finite(rng, datatype, (3, 5))}
    asked = Asked(model, inputs, dict.fromkeys(inputs, datatype))
    checked(ask, Reference(graph_folder / model / "1" / "model.onnx"), asked)


@pytest.mark.parametrize("datatype", ADDED)
def test_numbers_are_added(ask: Ask, graph_folder: Path, datatype: str) -> None:
    model = f"add_{datatype}"
    rng = np.random.default_rng(3)
    inputs = {name: finite(rng, datatype, (4, 3)) for name in "ab"}
    asked = Asked(model, inputs, dict.fromkeys(inputs, datatype))
    checked(ask, Reference(graph_folder / model / "1" / "model.onnx"), asked)


@pytest.mark.parametrize("ask", ["http", "http_aio"], indirect=True)
@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in BINARY_ONLY])
def test_json_carries_a_tensor_without_loss(ask: Ask, graph_folder: Path, datatype: str) -> None:
    model = f"identity_{datatype}"
    array = finite(np.random.default_rng(4), datatype, (3, 4))
    if datatype == "BYTES":
        # JSON strings are text.
        array = np.array([["", "a"], ["größe", 'quote " \\ \n \u0001'], ["𝄞", "x" * 300]], np.object_)
        array = np.vectorize(str.encode, otypes=[np.object_])(array)
    asked = Asked(model, {"x": array}, {"x": datatype}, outputs=["y"], binary=False)
    checked(ask, Reference(graph_folder / model / "1" / "model.onnx"), asked)
