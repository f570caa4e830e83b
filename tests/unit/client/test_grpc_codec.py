"""gRPC messages, pinned by bytes written by hand."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.client import grpc_codec as codec
from mlserve.client._proto import inference_pb2 as pb
from mlserve.client.prepare import prepare
from mlserve.errors import InternalError, InvalidArgumentError, MlserveError, QueueFullError
from mlserve.types import InferRequest, InferResult, ParameterValue

# model_name "m", model_version "1", id "i", one input x FP32 [1, 2], output y, raw contents 1.0 and 2.0.
REQUEST = bytes.fromhex("0a016d1201311a01692a0d0a01781204465033321a02010232030a01793a080000803f00000040")
# The answer: output y FP32 [2], raw contents 3.0 and 4.0.
ANSWER = bytes.fromhex("0a016d1201311a01692a0c0a01791204465033321a010232080000404000008040")


def test_request_is_the_bytes_of_the_protocol() -> None:
    array = np.array([[1.0, 2.0]], np.float32)
    wire = prepare(InferRequest("m", {"x": array}, "1", ["y"], request_id="i"), None)
    assert codec.infer_message(wire).SerializeToString() == REQUEST


def test_answer_is_read_from_the_bytes_of_the_protocol() -> None:
    result = codec.infer_result(codec.parse(pb.ModelInferResponse, ANSWER))
    assert (result.model_name, result.model_version, result.id) == ("m", "1", "i")
    assert list(result) == ["y"]
    assert result["y"].tolist() == [3.0, 4.0]


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_our_error(data: bytes) -> None:
    with suppress(InternalError):
        codec.infer_result(codec.parse(pb.ModelInferResponse, data))


@pytest.mark.parametrize(
    ("value", "field"),
    [(True, "bool_param"), (-3, "int64_param"), (1.5, "double_param"), ("s", "string_param")],
)
def test_parameters_keep_their_kind(value: ParameterValue, field: str) -> None:
    wire = prepare(InferRequest("m", {"x": np.zeros(1)}, parameters={"p": value}), None)
    message = codec.infer_message(wire)
    assert message.parameters["p"].WhichOneof("parameter_choice") == field
    assert getattr(message.parameters["p"], field) == value


def test_classification_is_a_parameter_of_its_output() -> None:
    wire = prepare(InferRequest("m", {"x": np.zeros(1)}, outputs=["a"], classification={"b": 3}), None)
    plain, classified = codec.infer_message(wire).outputs
    assert (plain.name, dict(plain.parameters)) == ("a", {})
    assert (classified.name, classified.parameters["classification"].int64_param) == ("b", 3)


def test_priority_is_sent_as_foreign_clients_do() -> None:
    message = codec.infer_message(prepare(InferRequest("m", {"x": np.zeros(1)}, priority=2), None))
    assert message.parameters["priority"].uint64_param == 2
    assert not codec.infer_message(prepare(InferRequest("m", {"x": np.zeros(1)}), None)).parameters


def test_a_parameter_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"parameter 'p'.*does not fit"):
        codec.infer_message(prepare(InferRequest("m", {"x": np.zeros(1)}, parameters={"p": 1 << 63}), None))


def test_typed_contents_are_read_where_nothing_is_raw() -> None:
    message = pb.ModelInferResponse(model_name="m")
    output = message.outputs.add(name="y", datatype="BYTES", shape=[2])
    output.contents.bytes_contents.extend([b"a", b"b"])
    assert codec.infer_result(message)["y"].tolist() == [b"a", b"b"]


def test_a_missing_raw_entry_is_the_servers_fault() -> None:
    message = codec.parse(pb.ModelInferResponse, ANSWER)
    message.outputs.add(name="z", datatype="FP32", shape=[0])
    with pytest.raises(InternalError, match="2 outputs, but 1 raw"):
        codec.infer_result(message)


def test_a_stream_carries_answers_and_errors() -> None:
    answer = pb.ModelStreamInferResponse(infer_response=codec.parse(pb.ModelInferResponse, ANSWER))
    assert isinstance(codec.stream_reply(answer.SerializeToString()), InferResult)
    refusal = codec.stream_reply(pb.ModelStreamInferResponse(error_message="no").SerializeToString())
    assert type(refusal) is MlserveError
    assert str(refusal) == "no"


def test_a_trailer_names_the_row_of_the_error() -> None:
    error = codec.error_of(14, "full", [("other", "x"), ("mlserve-code", "queue_full")])
    assert type(error) is QueueFullError
    assert str(error) == "full"
