"""Several tensors, chosen outputs, rank 0, models that cannot batch, typed contents and JSON, through foreign clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conformance.triton_clients import Asked, Reply
from tests.graphs import DATATYPES
from tests.reference import Answered, Place, Reference, assert_same_bits, check_batches
from tests.tensors_at_random import finite

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

# aiohttp would rather have a file for bodies above a megabyte; the foreign client sends bytes.
pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

Ask = Callable[[Asked], Reply]
MIXED = {"x": "FP32", "ids": "INT64", "name": "BYTES"}
# Where the protocol's typed contents hold elements of a type; FP16 and BF16 have no such field.
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def mixed_inputs(rows: int) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    rng = np.random.default_rng(rows)
    return {
        "x": finite(rng, "FP32", (rows, 2, 2)),
        "ids": rng.integers(-9, 9, (rows, 3)),
        "name": finite(rng, "BYTES", (rows, 1)),
    }


def reference(folder: Path, model: str) -> Reference:
    return Reference(folder / model / "1" / "model.onnx")


def test_three_inputs_give_three_outputs(ask: Ask, graph_folder: Path) -> None:
    inputs = mixed_inputs(5)
    reply = ask(Asked("mixed", inputs, MIXED))
    assert list(reply.arrays) == ["doubled", "total", "marked"]
    check_batches(reference(graph_folder, "mixed"), [Answered(inputs, reply.arrays, Place.of(reply.parameters))])


def test_inputs_may_come_in_any_order(ask: Ask, graph_folder: Path) -> None:
    inputs = mixed_inputs(2)
    reply = ask(Asked("mixed", dict(reversed(inputs.items())), MIXED))
    check_batches(reference(graph_folder, "mixed"), [Answered(inputs, reply.arrays, Place.of(reply.parameters))])


@pytest.mark.parametrize("wanted", [["total"], ["marked", "doubled"], ["total", "doubled", "marked"]], ids=str)
def test_only_the_chosen_outputs_come_in_the_chosen_order(ask: Ask, graph_folder: Path, wanted: list[str]) -> None:
    inputs = mixed_inputs(3)
    reply = ask(Asked("mixed", inputs, MIXED, outputs=wanted))
    assert list(reply.arrays) == wanted
    check_batches(reference(graph_folder, "mixed"), [Answered(inputs, reply.arrays, Place.of(reply.parameters))])


def test_an_output_asked_for_twice_comes_once(ask: Ask) -> None:
    reply = ask(Asked("mixed", mixed_inputs(1), MIXED, outputs=["total", "total"]))
    assert list(reply.arrays) == ["total"]


def test_a_scalar_has_no_dimensions(ask: Ask) -> None:
    reply = ask(Asked("scalar", {"x": np.array(1.5, np.float32)}, {"x": "FP32"}))
    assert_same_bits(reply.arrays["y"], np.array(-1.5, np.float32), "y")


def test_a_model_of_fixed_shape_answers(ask: Ask) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reply = ask(Asked("fixed", {"x": array}, {"x": "FP32"}))
    assert_same_bits(reply.arrays["y"], -array, "y")
    assert Place.of(reply.parameters).offset == 0


def test_a_model_whose_rows_mix_answers_whole_requests(ask: Ask, graph_folder: Path) -> None:
    array = finite(np.random.default_rng(5), "FP32", (7, 4))
    reply = ask(Asked("centred", {"x": array}, {"x": "FP32"}))
    assert_same_bits(reply.arrays["y"], reference(graph_folder, "centred").run({"x": array})["y"], "y")


def test_more_rows_than_a_run_takes_come_back_whole(ask: Ask) -> None:
    array = np.arange(1_000, dtype=np.int64).reshape(200, 5)
    reply = ask(Asked("identity_INT64", {"x": array}, {"x": "INT64"}))
    assert_same_bits(reply.arrays["y"], array, "y")


def test_a_tensor_of_megabytes_comes_back_whole(ask: Ask) -> None:
    array = finite(np.random.default_rng(6), "FP32", (3, 700_001))
    reply = ask(Asked("identity_FP32", {"x": array}, {"x": "FP32"}))
    assert_same_bits(reply.arrays["y"], array, "y")


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_are_answered_raw(graph_server: ServerProcess, datatype: str) -> None:
    array = finite(np.random.default_rng(7), datatype, (2, 3))
    contents = service_pb2.InferTensorContents(**{CONTENTS[datatype]: array.ravel().tolist()})
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name="x", datatype=datatype, shape=[2, 3], contents=contents
    )
    request = service_pb2.ModelInferRequest(model_name=f"identity_{datatype}", inputs=[tensor])
    with grpc.insecure_channel(graph_server.grpc) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert len(response.raw_output_contents) == 1
    assert not response.outputs[0].HasField("contents")
    found = tritonclient.grpc.InferResult(response).as_numpy("y")
    assert_same_bits(found.astype(DATATYPES[datatype].carrier), array, "y")


def test_an_empty_tensor_has_an_empty_raw_entry(graph_server: ServerProcess) -> None:
    """The C++ client indexes raw contents without a check."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[0, 3])
    request = service_pb2.ModelInferRequest(model_name="identity_FP32", inputs=[tensor], raw_input_contents=[b""])
    with grpc.insecure_channel(graph_server.grpc) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert list(response.raw_output_contents) == [b""]
    assert list(response.outputs[0].shape) == [0, 3]
