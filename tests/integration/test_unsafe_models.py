"""Models whose rows influence each other are found when they are loaded, served one request a run, and say why.

Each test also shows what batching them would do: the runtime itself, given two callers' rows at once, lets one change
the answer of the other.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mlserve.client._proto import inference_pb2
from tests import graphs
from tests.conftest import serving
from tests.raw_http import ask
from tests.raw_http2 import INFER
from tests.reference import Reference, assert_same_bits
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [
    pytest.mark.server,
    # The quantiser's own code, which still uses an older name of the runtime's.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxruntime.*"),
]

INPUTS = {"quantised": 8, "centred": 4}
REASONS = {"quantised": ["DynamicQuantizeLinear", "influence each other"], "centred": ["ReduceMean", "batch"]}
# Callers at once: enough that a server which batched would.
CALLERS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("mlp", "centred"))
    named = onnx.load(folder / "mlp" / "1" / "model.onnx")
    plain = folder.parent / "plain.onnx"
    onnx.save(named, plain)
    quantised = folder / "quantised" / "1" / "model.onnx"
    quantised.parent.mkdir(parents=True)
    quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(folder, "--report-batches")


def rows(model: str) -> tuple[np.ndarray[Any, np.dtype[Any]], np.ndarray[Any, np.dtype[Any]]]:
    """An ordinary row, and a neighbour that is not."""
    calm = np.random.default_rng(1).standard_normal((1, INPUTS[model])).astype(np.float32)
    return calm, np.full_like(calm, 1e4)


@pytest.mark.parametrize("model", INPUTS)
def test_batching_would_let_a_neighbour_change_the_answer(folder: Path, model: str) -> None:
    reference = Reference(folder / model / "1" / "model.onnx")
    calm, wild = rows(model)
    (name,) = reference.outputs
    alone = reference.run({"x": calm})[name]
    beside = reference.run({"x": np.concatenate([calm, wild])})[name][:1]
    assert float(np.abs(alone - beside).max()) > 0.05, "no leak: this model proves nothing"


@pytest.mark.parametrize("model", INPUTS)
def test_answers_beside_wild_neighbours_are_those_of_the_row_alone(
    server: ServerProcess, folder: Path, model: str
) -> None:
    reference = Reference(folder / model / "1" / "model.onnx")
    calm, wild = rows(model)
    messages = [Inference(model, [Tensor.of("x", array, "FP32")]).message() for array in (calm, wild)]

    async def ask_all() -> list[bytes]:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            call: Any = channel.unary_unary(INFER)
            return list(await asyncio.gather(*(call(messages[index % 2]) for index in range(CALLERS))))

    expected = [next(iter(reference.run({"x": array}).values())) for array in (calm, wild)]
    for index, message in enumerate(asyncio.run(ask_all())):
        response: Any = inference_pb2.ModelInferResponse.FromString(message)
        found = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(expected[0].shape)
        assert_same_bits(found, expected[index % 2], f"request {index}")
        assert response.parameters["mlserve_batch_rows"].int64_param == 1


@pytest.mark.parametrize("model", INPUTS)
def test_a_request_of_many_rows_runs_whole(server: ServerProcess, folder: Path, model: str) -> None:
    """Even more rows than a batch takes: cutting such a request would change its answer."""
    array = np.random.default_rng(2).standard_normal((100, INPUTS[model])).astype(np.float32)
    body, fields = Inference(model, [Tensor.of("x", array, "FP32")], parameters={"binary_data_output": True}).body()
    answer = ask(server.http, "POST", f"/v2/models/{model}/infer", body, fields)
    assert answer.status == 200, answer
    (expected,) = Reference(folder / model / "1" / "model.onnx").run({"x": array}).values()
    data = answer.body[int(answer.headers["inference-header-content-length"]) :]
    assert_same_bits(np.frombuffer(data, np.float32).reshape(expected.shape), expected, model)


@pytest.mark.parametrize("model", INPUTS)
def test_metadata_says_why(server: ServerProcess, model: str) -> None:
    over_http = ask(server.http, "GET", f"/v2/models/{model}").json["properties"]
    with grpc.insecure_channel(server.grpc) as channel:
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        raw = call(inference_pb2.ModelMetadataRequest(name=model).SerializeToString())
        over_grpc = dict(inference_pb2.ModelMetadataResponse.FromString(raw).properties)
        # A foreign client skips the field that it does not know.
        foreign = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelMetadata(
            service_pb2.ModelMetadataRequest(name=model)
        )
    assert over_http == over_grpc
    assert foreign.name == model
    assert any(all(part in value for part in REASONS[model]) for value in over_http.values()), over_http


def test_metadata_of_a_safe_model_gives_no_reason(server: ServerProcess) -> None:
    found = ask(server.http, "GET", "/v2/models/mlp").json["properties"]
    assert not any("influence" in value for value in found.values()), found


@pytest.mark.parametrize("model", INPUTS)
def test_inspect_says_why(folder: Path, model: str) -> None:
    command = [sys.executable, "-m", "mlserve", "inspect", str(folder / model / "1" / "model.onnx"), "--json"]
    done = subprocess.run(command, check=True, capture_output=True)
    found = json.loads(done.stdout)
    assert found["batching"] is False
    assert all(part in found["batching_reason"] for part in REASONS[model])


def test_inspect_of_a_safe_model_says_that_it_batches(folder: Path) -> None:
    command = [sys.executable, "-m", "mlserve", "inspect", str(folder / "mlp" / "1" / "model.onnx"), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert (found["batching"], found["batching_reason"]) == (True, None)
