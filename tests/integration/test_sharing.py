"""Under load, rows of many clients share runs: each client gets its own answer, bit for bit that of the runtime.

The server tells which rows shared a batch; the batch is put together again and run in this process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc.aio
import numpy as np
import pytest

from mlserve.client._proto import inference_pb2
from tests import graphs
from tests.conftest import serving
from tests.raw_http2 import INFER
from tests.reference import Answered, Place, Reference, check_batches, rebuilt
from tests.requests_by_hand import Inference, Tensor
from tests.tensors_at_random import finite

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

# A row alone against the same row in a batch: sums of 16 products may be added in another order.
RELATIVE, ABSOLUTE = 1e-5, 1e-6
TASKS = 48
REQUESTS_OF_A_TASK = 25

Inputs = dict[str, np.ndarray[Any, np.dtype[Any]]]
Make = Callable[[np.random.Generator], Inputs]


def mlp_inputs(rng: np.random.Generator) -> Inputs:
    return {"x": finite(rng, "FP32", (int(rng.integers(1, 6)), 8))}


def ragged_inputs(rng: np.random.Generator) -> Inputs:
    return {"x": finite(rng, "FP32", (int(rng.integers(1, 4)), int(rng.choice([1, 3, 8]))))}


def mixed_inputs(rng: np.random.Generator) -> Inputs:
    rows = int(rng.integers(0, 4))
    return {
        "x": finite(rng, "FP32", (rows, 2, 2)),
        "ids": rng.integers(-9, 9, (rows, 3)),
        "name": finite(rng, "BYTES", (rows, 1)),
    }


MODELS: dict[str, tuple[Make, dict[str, str]]] = {
    "mlp": (mlp_inputs, {"x": "FP32"}),
    "ragged": (ragged_inputs, {"x": "FP32"}),
    "mixed": (mixed_inputs, {"x": "FP32", "ids": "INT64", "name": "BYTES"}),
}


@pytest.fixture(scope="module", params=["inline", "pool", "delayed"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, graph_folder: Path
) -> Iterator[ServerProcess]:
    """Servers that take each lane: runs on the loop, runs on instances, and batches that wait for more."""
    lane = {
        "inline": ["inline=true"],
        "pool": ["inline=false", "instances=2"],
        "delayed": ["max_delay_us=2000", "instances=2"],
    }[request.param]
    flags = [part for model in MODELS for setting in lane for part in ("--set", f"models.{model}.{setting}")]
    with serving(tmp_path_factory.mktemp(request.param)) as start:
        yield start(graph_folder, "--report-batches", *flags)


def inference(model: str, inputs: Inputs) -> Inference:
    datatypes = MODELS[model][1]
    return Inference(model, [Tensor.of(name, array, datatypes[name]) for name, array in inputs.items()])


def decoded(data: bytes, datatype: str, shape: Sequence[int]) -> np.ndarray[Any, np.dtype[Any]]:
    if datatype != "BYTES":
        return np.frombuffer(data, graphs.DATATYPES[datatype].carrier).reshape(shape)
    texts, at = np.empty(int(np.prod(shape)), np.object_), 0
    for index in range(len(texts)):
        length = int.from_bytes(data[at : at + 4], "little")
        texts[index] = data[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(data)
    return texts.reshape(shape)


def read_grpc(inputs: Inputs, message: bytes) -> Answered:
    response: Any = inference_pb2.ModelInferResponse.FromString(message)
    parameters = {name: item.int64_param for name, item in response.parameters.items()}
    outputs = {
        output.name: decoded(data, output.datatype, output.shape)
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return Answered(inputs, outputs, Place.of(parameters))


def read_http(inputs: Inputs, body: bytes, json_length: int) -> Answered:
    document = json.loads(body[:json_length])
    outputs, at = {}, json_length
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = decoded(body[at : at + size], output["datatype"], output["shape"])
        at += size
    assert at == len(body)
    return Answered(inputs, outputs, Place.of(document["parameters"]))


async def ask_grpc(server: ServerProcess, model: str, made: list[list[Inputs]]) -> list[Answered]:
    async with grpc.aio.insecure_channel(server.grpc) as one, grpc.aio.insecure_channel(server.http) as other:
        calls: list[Any] = [channel.unary_unary(INFER) for channel in (one, other)]

        async def task(index: int, requests: list[Inputs]) -> list[Answered]:
            call = calls[index % 2]
            return [read_grpc(inputs, await call(inference(model, inputs).message())) for inputs in requests]

        done = await asyncio.gather(*(task(index, requests) for index, requests in enumerate(made)))
    return [answered for answers in done for answered in answers]


async def ask_http(server: ServerProcess, model: str, made: list[list[Inputs]]) -> list[Answered]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(inputs: Inputs) -> Answered:
            asked = Inference(model, inference(model, inputs).inputs, parameters={"binary_data_output": True})
            body, fields = asked.body()
            async with session.post(f"http://{server.http}{asked.target}", data=body, headers=fields) as response:
                data = await response.read()
                assert response.status == 200, data
                return read_http(inputs, data, int(response.headers["inference-header-content-length"]))

        async def task(requests: list[Inputs]) -> list[Answered]:
            return [await ask(inputs) for inputs in requests]

        done = await asyncio.gather(*(task(requests) for requests in made))
    return [answered for answers in done for answered in answers]


def made_for(model: str, seed: int) -> list[list[Inputs]]:
    rng = np.random.default_rng(seed)
    make = MODELS[model][0]
    return [[make(rng) for _ in range(REQUESTS_OF_A_TASK)] for _ in range(TASKS)]


@pytest.mark.parametrize("model", MODELS)
def test_every_client_gets_the_answer_to_its_own_rows(server: ServerProcess, graph_folder: Path, model: str) -> None:
    """Both transports at once, so that their rows share runs too."""
    with ThreadPoolExecutor(2) as threads:
        over_grpc = threads.submit(asyncio.run, ask_grpc(server, model, made_for(model, 1)))
        over_http = threads.submit(asyncio.run, ask_http(server, model, made_for(model, 2)))
        answers = over_grpc.result() + over_http.result()
    assert len(answers) == 2 * TASKS * REQUESTS_OF_A_TASK
    reference = Reference(graph_folder / model / "1" / "model.onnx")
    shared = check_batches(reference, answers)
    assert shared > 20, "hardly any requests shared a batch: the load shows nothing"
    for answered in answers[:: len(answers) // 50]:
        alone = reference.run(answered.inputs)
        for name, found in answered.outputs.items():
            if found.dtype.kind == "f":
                np.testing.assert_allclose(found, alone[name], RELATIVE, ABSOLUTE)
            else:
                np.testing.assert_array_equal(found, alone[name])


def test_only_tensors_that_agree_share_a_batch(server: ServerProcess) -> None:
    answers = asyncio.run(ask_grpc(server, "ragged", made_for("ragged", 3)))
    for members in rebuilt(answers).values():
        assert len({member.inputs["x"].shape[1] for member in members}) == 1


def test_a_batch_is_never_larger_than_its_maximum(server: ServerProcess) -> None:
    answers = asyncio.run(ask_grpc(server, "mlp", made_for("mlp", 4)))
    assert max(answered.place.rows for answered in answers) <= 64


@pytest.mark.parametrize(
    "every",
    [
        100,
        10,
        2,
    ],
)
def test_bad_rows_hurt_only_their_senders(server: ServerProcess, graph_folder: Path, every: int) -> None:
    """Indices that the operation refuses, among hundreds of good ones, many of which share their batches."""
    reference = Reference(graph_folder / "lookup" / "1" / "model.onnx")
    rng = np.random.default_rng(5)
    rows = [rng.integers(-10, 10, (1, 2)) for _ in range(1_500)]
    for index in range(0, len(rows), every):
        rows[index] = np.array([[0, 99]])

    async def ask() -> list[Any]:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            call: Any = channel.unary_unary(INFER)
            requests = [Inference("lookup", [Tensor.of("ids", array, "INT64")]).message() for array in rows]
            return await asyncio.gather(*(call(request) for request in requests), return_exceptions=True)

    for index, (array, outcome) in enumerate(zip(rows, asyncio.run(ask()), strict=True)):
        if index % every == 0:
            assert isinstance(outcome, grpc.aio.AioRpcError)
            assert outcome.code() == grpc.StatusCode.INVALID_ARGUMENT, outcome
            assert "99" in (outcome.details() or "")
        else:
            assert isinstance(outcome, bytes), outcome
            found = read_grpc({"ids": array}, outcome).outputs["y"]
            np.testing.assert_array_equal(found, reference.run({"ids": array})["y"])
