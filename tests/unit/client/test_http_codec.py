"""HTTP bodies, pinned by bytes written by hand."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest

from mlserve.client import http_codec as codec
from mlserve.client.prepare import CallOptions, prepare
from mlserve.errors import InternalError, InvalidArgumentError, NotFoundError, QueueFullError, UnavailableError
from mlserve.types import Compression, InferRequest

CALL = CallOptions(None, {})
INPUTS = {"x": np.array([[1.0, 2.0]], np.float32)}
BLOB = bytes.fromhex("0000803f00000040")


def answer(status: int, document: Any, blob: bytes = b"", **headers: str) -> codec.HttpAnswer:
    head = json.dumps(document).encode()
    length = {codec.JSON_LENGTH_HEADER: str(len(head))} if blob else {}
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return codec.HttpAnswer(status, {**length, **found}, head + blob)


def test_request_is_json_and_then_the_bytes() -> None:
    wire = prepare(InferRequest("a/b", INPUTS, "3", ["y"], {"p": 1}, 2, "i"), None)
    request = codec.infer_request(wire, CallOptions(0.5, {"X-Request-Id": "r"}), None)
    assert (request.method, request.path) == ("POST", "/v2/models/a%2Fb/versions/3/infer")
    cut = int(request.headers["inference-header-content-length"])
    assert json.loads(request.body[:cut]) == {
        "id": "i",
        "parameters": {"p": 1, "priority": 2},
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert request.body[cut:] == BLOB
    assert request.headers["x-request-id"] == "r"
    assert request.headers["x-request-timeout-ms"] == "500"


def test_all_outputs_are_asked_for_in_binary() -> None:
    request = codec.infer_request(prepare(InferRequest("m", INPUTS), None), CALL, None)
    cut = int(request.headers["inference-header-content-length"])
    assert json.loads(request.body[:cut])["parameters"] == {"binary_data_output": True}
    assert request.path == "/v2/models/m/infer"


def test_classification_is_a_parameter_of_its_output() -> None:
    wire = prepare(InferRequest("m", INPUTS, outputs=["a"], classification={"b": 3}), None)
    request = codec.infer_request(wire, CALL, None)
    cut = int(request.headers["inference-header-content-length"])
    assert json.loads(request.body[:cut])["outputs"] == [
        {"name": "a", "parameters": {"binary_data": True}},
        {"name": "b", "parameters": {"binary_data": True, "classification": 3}},
    ]


@pytest.mark.parametrize(("compression", "inflate"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_compressed_bodies_inflate_to_the_plain_one(compression: Compression, inflate: Any) -> None:
    wire = prepare(InferRequest("m", INPUTS), None)
    request = codec.infer_request(wire, CALL, compression)
    assert inflate(request.body) == codec.infer_request(wire, CALL, None).body
    assert request.headers["content-encoding"] == compression


@pytest.mark.parametrize("nested", [[[3.0, 4.0]], [3.0, 4.0]])
def test_json_answers_are_read_nested_or_flat(nested: list[Any]) -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": nested}
    result = codec.infer_result(answer(200, {"model_name": "m", "model_version": "1", "outputs": [output]}))
    assert result["y"].tolist() == [[3.0, 4.0]]
    assert result["y"].dtype == np.float32


def test_binary_answers_are_read_in_order() -> None:
    outputs = [
        {"name": "a", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "b", "datatype": "INT64", "shape": [1], "data": [7]},
        {"name": "c", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}},
    ]
    document = {"model_name": "m", "id": "i", "parameters": {"p": 1}, "outputs": outputs}
    result = codec.infer_result(answer(200, document, BLOB + b"\x05"))
    assert {name: array.tolist() for name, array in result.items()} == {"a": [1.0, 2.0], "b": [7], "c": [5]}
    assert (result.id, result.parameters) == ("i", {"p": 1})


def test_a_compressed_answer_is_inflated() -> None:
    plain = answer(200, {"model_name": "m", "outputs": []})
    squeezed = codec.HttpAnswer(200, {"content-encoding": "gzip"}, gzip.compress(plain.body))
    assert codec.infer_result(squeezed).model_name == "m"


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        (answer(400, {"error": "wrong shape"}), InvalidArgumentError, "wrong shape"),
        (answer(404, {"error": "unknown"}), NotFoundError, "unknown"),
        (answer(503, {"error": "full"}, mlserve_code="queue_full"), QueueFullError, "full"),
        (codec.HttpAnswer(502, {}, b"<html>bad gateway"), UnavailableError, "bad gateway"),
        (codec.HttpAnswer(400, {}, b""), InvalidArgumentError, "status 400"),
    ],
)
def test_refusals_keep_the_servers_text(refusal: codec.HttpAnswer, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        codec.infer_result(refusal)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "broken",
    [
        codec.HttpAnswer(200, {}, b"no json"),
        codec.HttpAnswer(200, {}, b"[]"),
        answer(200, {"model_name": "m"}),
        answer(200, {"model_name": "m", "outputs": [{"name": "y"}]}),
        answer(200, {"model_name": "m", "outputs": [1]}),
        codec.HttpAnswer(200, {"content-encoding": "gzip"}, b"no gzip"),
    ],
)
def test_broken_answers_are_the_servers_fault(broken: codec.HttpAnswer) -> None:
    with pytest.raises(InternalError):
        codec.infer_result(broken)


def test_metadata_is_read() -> None:
    document = {
        "name": "m",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [],
    }
    found = codec.model_metadata(answer(200, document))
    assert (found.name, found.versions, found.inputs[0].shape) == ("m", ("1",), (-1, 2))
    server = codec.server_metadata(answer(200, {"name": "s", "version": "2", "extensions": ["e"]}))
    assert (server.name, server.version, server.extensions) == ("s", "2", ("e",))
