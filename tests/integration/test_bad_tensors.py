"""Requests that are well-formed and wrong: each is refused with a text that names the tensor, the value, what is allowed."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

# HTTP status and gRPC number.
INVALID = (400, 3)
MISSING = (404, 5)
TOO_LARGE = (413, 8)
NOT_OFFERED = (501, 12)
X = Tensor.of("x", np.ones((1, 8), np.float32), "FP32")
ONE = Tensor("x", "FP32", (1, 1), b"\0\0\0\0")


SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 32}


def free(
    shape: tuple[int, ...],
    data: bytes = b"\0" * 8,
    datatype: str = "FP32",
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Inference:
    """For a model that takes any two dimensions."""
    return Inference(f"identity_{datatype}", [Tensor("x", datatype, shape, data)], outputs or {})


def mixed(**changed: Tensor) -> Inference:
    sound = {
        "x": Tensor("x", "FP32", (1, 2, 2), b"\0" * 16),
        "ids": Tensor("ids", "INT64", (1, 3), b"\0" * 24),
        "name": Tensor("name", "BYTES", (1, 1), struct.pack("<I", 1) + b"a"),
    }
    return Inference("mixed", list({**sound, **changed}.values()))


@dataclass(frozen=True)
class Wrong:
    """A request, how it is refused, and what the text must say.

    Attributes:
        http_says: Where HTTP says it in other words: it finds it while it reads JSON, or Triton's texts differ.
    """

    inference: Inference
    statuses: tuple[int, int]
    says: list[str]
    http_says: list[str] = field(default_factory=list)


BROKEN_BYTES = struct.pack("<I", 100) + b"abc"
CASES: dict[str, Wrong] = {
    "unknown model": Wrong(Inference("nobody", [X]), MISSING, ["'nobody'", "is not found"]),
    "unknown version": Wrong(Inference("mlp", [X], version="9"), MISSING, ["'mlp' version 9"]),
    "version 0": Wrong(Inference("mlp", [X], version="0"), MISSING, ["'mlp' version 0"]),
    "no inputs": Wrong(Inference("mlp", []), INVALID, ["expected 1 inputs but got 0", "'x'"]),
    "missing input": Wrong(Inference("concat_FP32", [Tensor("a", "FP32", (1, 1), b"\0" * 4)]), INVALID, ["['b']"]),
    "unknown input": Wrong(Inference("mlp", [Tensor("z", "FP32", (1, 8), X.data)]), INVALID, ["'z'", "'mlp'"]),
    "one input too many": Wrong(
        Inference("mlp", [X, Tensor("z", "FP32", (1, 8), X.data)]), INVALID, ["unexpected inference input 'z'"]
    ),
    "duplicate input": Wrong(Inference("mlp", [X, X]), INVALID, ["input 'x' already exists in request"]),
    "unknown output": Wrong(Inference("mlp", [X], {"zz": {}}), INVALID, ["unexpected inference output 'zz'"]),
    "wrong datatype": Wrong(
        Inference("mlp", [Tensor("x", "INT32", (1, 8), X.data)]), INVALID, ["'x'", "'INT32'", "'FP32'"]
    ),
    "unknown datatype": Wrong(
        Inference("mlp", [Tensor("x", "FP31", (1, 8), X.data)]), INVALID, ["invalid datatype for input x", "'FP31'"]
    ),
    "wrong size": Wrong(
        Inference("mlp", [Tensor("x", "FP32", (1, 7), b"\0" * 28)]), INVALID, ["'x'", "[-1,8]", "[1,7]"]
    ),
    "rank too low": Wrong(Inference("mlp", [Tensor("x", "FP32", (8,), X.data)]), INVALID, ["'x'", "[-1,8]", "[8]"]),
    "rank too high": Wrong(
        Inference("mlp", [Tensor("x", "FP32", (1, 1, 8), X.data)]), INVALID, ["'x'", "[-1,8]", "[1,1,8]"]
    ),
    "other rows": Wrong(
        mixed(ids=Tensor("ids", "INT64", (2, 3), b"\0" * 48)), INVALID, ["'ids'", "2 rows", "'x' has 1"]
    ),
    "negative dimension": Wrong(free((-1, 2)), INVALID, ["'x'", "[-1,2]"], ["'x'", "-1", "from 0 to"]),
    "two negative dimensions": Wrong(free((-1, -2)), INVALID, ["'x'", "[-1,-2]"], ["'x'", "-1", "from 0 to"]),
    "least dimension": Wrong(
        free((-(1 << 63), 1)), INVALID, ["'x'", "[-9223372036854775808,1]"], ["'x'", "-9223372036854775808"]
    ),
    "product that wraps to 0": Wrong(free((1 << 32, 1 << 32)), INVALID, ["'x'", "[4294967296,4294967296]"]),
    "product that wraps to the bytes": Wrong(free(((1 << 62) + 1, 2)), INVALID, ["'x'", "[4611686018427387905,2]"]),
    "bytes that wrap": Wrong(free((1 << 61, 2)), INVALID, ["'x'", "[2305843009213693952,2]"]),
    "largest dimension": Wrong(free(((1 << 63) - 1, 1)), INVALID, ["'x'", "[9223372036854775807,1]"]),
    "bytes too few": Wrong(free((1, 3)), INVALID, ["'x'", "Expected 12, got 8"]),
    "bytes too many": Wrong(free((1, 1)), INVALID, ["'x'", "Expected 4, got 8"]),
    "no bytes": Wrong(free((1, 1), b""), INVALID, ["'x'", "Expected 4, got 0"]),
    "bytes for no elements": Wrong(free((0, 1)), INVALID, ["'x'", "Expected 0, got 8"]),
    "17 dimensions": Wrong(free((1,) * 17, b"\0" * 4), TOO_LARGE, ["'x'", "17", "16"], ["'x'", "16"]),
    "300 inputs": Wrong(Inference("mlp", [X] * 300), TOO_LARGE, ["256", "inputs"]),
    "300 outputs": Wrong(
        Inference("mlp", [X], {f"o{index}": {} for index in range(300)}), TOO_LARGE, ["256", "outputs"]
    ),
    "element beyond the end": Wrong(free((1, 1), BROKEN_BYTES, "BYTES"), INVALID, ["'x'", "100"]),
    "half a length": Wrong(free((1, 1), b"\1\0", "BYTES"), INVALID, ["'x'"]),
    "elements too few": Wrong(free((1, 2), b"\0" * 4, "BYTES"), INVALID, ["'x'", "Expected 2, got 1"]),
    "elements too many": Wrong(free((1, 1), b"\0" * 8, "BYTES"), INVALID, ["'x'", "Expected 1, got 2"]),
    "more elements than fit": Wrong(free((1 << 40, 1 << 40), b"\0" * 8, "BYTES"), INVALID, ["'x'"]),
    "BOOL of 2": Wrong(free((1, 2), b"\1\2", "BOOL"), INVALID, ["element 1", "'x'", "2", "0 and 1"]),
    "index out of range": Wrong(
        Inference("lookup", [Tensor.of("ids", np.array([[0, 99]]), "INT64")]), INVALID, ["Gather", "99", "[-10,9]"]
    ),
    "text that is no number": Wrong(
        Inference("parse", [Tensor("text", "BYTES", (1, 1), struct.pack("<I", 3) + b"abc")]), INVALID, ["Cast"]
    ),
    "more memory than there is": Wrong(
        Inference("large", [Tensor.of("count", np.array([1 << 40]), "INT64")]), INVALID, ["memory"]
    ),
    "negative count": Wrong(Inference("large", [Tensor.of("count", np.array([-5]), "INT64")]), INVALID, []),
    "reserved parameter": Wrong(
        Inference("mlp", [X], parameters={"triton_x": 1}),
        INVALID,
        ["'triton_' are reserved", "triton_enable_empty_final_response"],
        ["'triton_' are reserved", "should not be specified"],
    ),
    "timeout of the wrong kind": Wrong(
        Inference("mlp", [X], parameters={"timeout": "soon"}), INVALID, ["'timeout'", "int64_param"]
    ),
    "negative timeout": Wrong(Inference("mlp", [X], parameters={"timeout": -1}), INVALID, ["'timeout'", ">= 0"]),
    "negative priority": Wrong(Inference("mlp", [X], parameters={"priority": -1}), INVALID, ["'priority'", ">= 0"]),
    "sequence start of the wrong kind": Wrong(
        Inference("mlp", [X], parameters={"sequence_start": 1}), INVALID, ["'sequence_start'", "bool_param"]
    ),
    "300 parameters": Wrong(
        Inference("mlp", [X], parameters={f"p{index}": index for index in range(300)}), TOO_LARGE, ["256 parameters"]
    ),
    "input in shared memory": Wrong(
        Inference("mlp", [Tensor("x", "FP32", (1, 8), X.data, SHARED)]), NOT_OFFERED, ["'x'", "--allow-client-shm"]
    ),
    "output in shared memory": Wrong(
        Inference("mlp", [X], {"probabilities": SHARED}), NOT_OFFERED, ["'probabilities'", "--allow-client-shm"]
    ),
    "region without a size": Wrong(
        Inference("mlp", [Tensor("x", "FP32", (1, 8), X.data, {"shared_memory_region": "r"})]),
        INVALID,
        ["'shared_memory_byte_size' must be specified", "'x'"],
    ),
    "classes of the wrong kind": Wrong(
        Inference("mlp", [X], {"probabilities": {"classification": "3"}}), INVALID, ["'classification'"]
    ),
    "negative classes": Wrong(
        Inference("mlp", [X], {"probabilities": {"classification": -1}}), INVALID, ["'classification'", "-1"]
    ),
    "classes of text": Wrong(
        Inference(
            "identity_BYTES", [Tensor.of("x", np.array([["a"]], np.object_), "BYTES")], {"y": {"classification": 1}}
        ),
        INVALID,
        ["class result not available for output due to unsupported type 'BYTES'", "'y'"],
    ),
    "classes of halves": Wrong(
        free((1, 4), datatype="FP16", outputs={"y": {"classification": 1}}),
        INVALID,
        ["class result not available for output due to unsupported type 'FP16'"],
    ),
    "more than a million classes": Wrong(
        free((1, 1_000_001), b"\0" * 1_000_001, "UINT8", {"y": {"classification": 1}}),
        INVALID,
        ["classification output tensor too large", "1000001"],
    ),
    "more than a million results, in parts": Wrong(
        free((101, 10_000), b"\0" * 1_010_000, "UINT8", {"y": {"classification": 10_000}}),
        INVALID,
        ["classification output tensor too large", "10000 results for each of 101 rows"],
    ),
    "control characters in a name": Wrong(
        Inference("mlp", [Tensor("x\n\0", "FP32", (1, 8), X.data)]), INVALID, ["'x\\n\\0'"]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named_over_grpc(attacked: ServerProcess, name: str) -> None:
    wrong = CASES[name]
    found = grpc_call(attacked.grpc, wrong.inference.message())
    assert found.grpc_status == wrong.statuses[1], found.grpc_text
    missing = [part for part in wrong.says if part not in found.grpc_text]
    assert not missing, f"{missing} are not in: {found.grpc_text}"


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named_over_http(attacked: ServerProcess, name: str) -> None:
    wrong = CASES[name]
    body, fields = wrong.inference.body()
    found = ask(attacked.http, "POST", wrong.inference.target, body, fields)
    assert found.status == wrong.statuses[0], found.body
    missing = [part for part in wrong.http_says or wrong.says if part not in found.text]
    assert not missing, f"{missing} are not in: {found.text}"


@pytest.mark.parametrize("name", [name for name, wrong in CASES.items() if not wrong.http_says])
def test_both_transports_say_it_in_the_same_words(attacked: ServerProcess, name: str) -> None:
    inference = CASES[name].inference
    body, fields = inference.body()
    over_http = ask(attacked.http, "POST", inference.target, body, fields)
    assert grpc_call(attacked.grpc, inference.message()).grpc_text == over_http.text


LONG = "\x01" * 500_000
LONGEST_TEXT = 8 << 10


@pytest.mark.parametrize(
    "inference",
    [
        Inference("mlp", [Tensor(LONG, "FP32", (1, 8), X.data)]),
        Inference("mlp", [Tensor("x", LONG, (1, 8), X.data)]),
        Inference("mlp", [X], {LONG: {}}),
        Inference("mlp", [Tensor("x", "FP32", (1, 7), b"\0" * 28)], id=LONG),
        Inference("mlp", [X], parameters={"triton_" + LONG: 1}),
        Inference("mlp", [X], {"probabilities": {"shared_memory_" + LONG: 1}}),
    ],
    ids=["input", "datatype", "output", "id", "parameter", "output parameter"],
)
def test_a_refusal_does_not_repeat_megabytes(attacked: ServerProcess, inference: Inference) -> None:
    """A text is not charged to the byte budget, so it must be short whatever the caller's names are."""
    body, fields = inference.body()
    over_http = ask(attacked.http, "POST", inference.target, body, fields)
    assert len(over_http.body) <= LONGEST_TEXT
    assert len(grpc_call(attacked.grpc, inference.message()).grpc_text) <= LONGEST_TEXT


@pytest.mark.parametrize("version", ["x", "-1", "+1", "1.0", "0x1", " 1", "99999999999999999999999"])
def test_a_version_that_is_no_number_is_named(attacked: ServerProcess, version: str) -> None:
    found = grpc_call(attacked.grpc, Inference("mlp", [X], version=version).message())
    assert found.grpc_status == INVALID[1]
    assert f"'{version}'" in found.grpc_text


def test_a_request_id_is_told_in_the_refusal(attacked: ServerProcess) -> None:
    found = grpc_call(attacked.grpc, Inference("mlp", [], id="wagon 7").message())
    assert found.grpc_text.startswith("[request id: wagon 7] ")


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_raw_contents_that_are_not_one_for_each_input_are_refused(attacked: ServerProcess, change: str) -> None:
    from mlserve.client._proto import inference_pb2  # noqa: PLC0415 -- only here

    request: Any = inference_pb2.ModelInferRequest.FromString(mixed().message())
    if change == "fewer":
        del request.raw_input_contents[-1]
    else:
        request.raw_input_contents.append(b"")
    found = grpc_call(attacked.grpc, request.SerializeToString())
    assert found.grpc_status == INVALID[1]
    assert "'name'" in found.grpc_text if change == "fewer" else "got 4" in found.grpc_text


def test_typed_and_raw_contents_together_are_refused(attacked: ServerProcess) -> None:
    from mlserve.client._proto import inference_pb2  # noqa: PLC0415 -- only here

    request: Any = inference_pb2.ModelInferRequest.FromString(Inference("mlp", [X]).message())
    request.inputs[0].contents.fp32_contents.extend([1.0] * 8)
    found = grpc_call(attacked.grpc, request.SerializeToString())
    assert found.grpc_status == INVALID[1]
    assert "contents field must not be specified when using raw_input_contents for 'x'" in found.grpc_text
