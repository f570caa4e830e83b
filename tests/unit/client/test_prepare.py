"""From the caller's arguments to a request that travels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlserve.client.prepare import needs_metadata, prepare
from mlserve.errors import InvalidArgumentError
from mlserve.types import InferRequest, ModelMetadata, Tensor, TensorMetadata

ONE = TensorMetadata("x", "INT8", (-1,))
SINGLE = ModelMetadata("m", ("1",), "p", (ONE,), ())
DOUBLE = ModelMetadata("m", ("1",), "p", (ONE, TensorMetadata("y", "FP32", (-1,))), ())


def test_arrays_by_name_need_no_metadata() -> None:
    bits = Tensor(np.zeros(1, np.uint16), "BF16")
    assert not needs_metadata({"x": np.zeros(1), "y": np.float32(1), "z": bits})
    assert needs_metadata({"x": [1]})
    assert needs_metadata(np.zeros(1))


def test_one_array_gets_the_name_of_the_only_input() -> None:
    (tensor,) = prepare(InferRequest("m", [1, 2]), SINGLE).inputs
    assert (tensor.name, tensor.datatype, bytes(tensor.data)) == ("x", "INT8", b"\x01\x02")


def test_one_array_is_refused_where_there_are_two_inputs() -> None:
    with pytest.raises(InvalidArgumentError, match=r"model 'm' has 2 inputs \('x', 'y'\)"):
        prepare(InferRequest("m", [1]), DOUBLE)


def test_an_array_keeps_its_own_type() -> None:
    (tensor,) = prepare(InferRequest("m", np.zeros(1, np.float64)), SINGLE).inputs
    assert tensor.datatype == "FP64"


def test_negative_priority_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="priority is -1"):
        prepare(InferRequest("m", {"x": np.zeros(1)}, priority=-1), None)


def test_an_output_to_classify_is_an_output_to_return() -> None:
    request = InferRequest("m", {"x": np.zeros(1)}, outputs=["a", "b"], classification={"b": 3, "c": 1})
    wire = prepare(request, None)
    assert (list(wire.outputs), wire.classification) == (["a", "b", "c"], {"b": 3, "c": 1})


@pytest.mark.parametrize("classes", [0, -1, True, 1.5, "3"])
def test_what_is_no_number_of_classes_is_refused(classes: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="classification of 'y' is"):
        prepare(InferRequest("m", {"x": np.zeros(1)}, classification={"y": classes}), None)
