"""Models whose rows influence each other are found when they are loaded, served one request a run, and say why.

Each test also shows what batching them would do: the runtime itself, given two callers' rows at once, lets one change
the answer of the other.
"""

from __future__ import annotations

import asyncio
import json
import shutil
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
    from tests.conftest import ServerProcess, StartServer

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


RED = np.array(["red"], dtype=object)
GREEN = np.array(["green"], dtype=object)


def behind_words() -> bytes:
    """Words to rows of a table, less the mean of all rows: no trial row that is not one of the words shows it."""
    keys: dict[str, Any] = {"keys_strings": ["red", "green"], "values_int64s": [1, 2], "default_int64": 0}
    table = np.array([[0, 0], [1, 4], [9, 16]], np.float32)
    nodes = [
        onnx.helper.make_node("LabelEncoder", ["s"], ["k"], domain="ai.onnx.ml", **keys),
        onnx.helper.make_node("Gather", ["table", "k"], ["e"]),
        onnx.helper.make_node("ReduceMean", ["e"], ["m"], axes=[0]),
        onnx.helper.make_node("Sub", ["e", "m"], ["y"]),
    ]
    inputs, outputs = [graphs.value("s", "BYTES", ["n"])], [graphs.value("y", "FP32", ["n", 2])]
    return saved(nodes, inputs, outputs, [graphs.constant("table", table)])


def packed() -> bytes:
    """One caller's places among the rows of all callers."""
    nodes = [
        onnx.helper.make_node("Gather", ["table", "ids"], ["e"]),
        onnx.helper.make_node("Gather", ["e", "starts"], ["y"]),
    ]
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    inputs = [graphs.value("ids", "INT64", ["k"]), graphs.value("starts", "INT64", ["n"])]
    return saved(nodes, inputs, [graphs.value("y", "FP32", ["n", 2])], [graphs.constant("table", table)])


def saved(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = onnx.helper.make_graph(nodes, "tests", inputs, outputs, constants)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def dictionaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dictionaries")
    for name, content in (("words", behind_words()), ("packed", packed())):
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return folder


def ask_each(server: ServerProcess, model: str, requests: list[list[Tensor]]) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Answers of many callers at once, who send these requests in turn; in the requests' order, a round after another."""
    messages = [Inference(model, tensors).message() for tensors in requests]

    async def ask_all() -> list[bytes]:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            call: Any = channel.unary_unary(INFER)
            return list(await asyncio.gather(*(call(messages[at % len(messages)]) for at in range(CALLERS))))

    responses: list[Any] = [inference_pb2.ModelInferResponse.FromString(raw) for raw in asyncio.run(ask_all())]
    return [np.frombuffer(response.raw_output_contents[0], np.float32) for response in responses]


@pytest.fixture(scope="module")
def dictionary_server(dictionaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("dictionary-server")) as start:
        yield start(dictionaries, "--report-batches")


def test_rows_that_meet_behind_words_never_share_a_run(dictionary_server: ServerProcess) -> None:
    requests = [[Tensor.of("s", word, "BYTES")] for word in (RED, GREEN)]
    # Alone each row is its own mean.
    assert all((answer == 0).all() for answer in ask_each(dictionary_server, "words", requests))


def test_a_caller_never_gets_the_row_of_another(dictionary_server: ServerProcess) -> None:
    zero = Tensor.of("starts", np.zeros(1, np.int64), "INT64")
    requests = [[Tensor.of("ids", np.array([number], np.int64), "INT64"), zero] for number in range(10)]
    for at, answer in enumerate(ask_each(dictionary_server, "packed", requests)):
        assert answer.tolist() == [2 * (at % 10), 2 * (at % 10) + 1]


def test_inputs_of_different_lengths_are_taken_by_a_model_without_rows(dictionary_server: ServerProcess) -> None:
    ids = Tensor.of("ids", np.array([3, 4, 5], np.int64), "INT64")
    starts = Tensor.of("starts", np.array([2, 0], np.int64), "INT64")
    body, fields = Inference("packed", [ids, starts]).body()
    answer = ask(dictionary_server.http, "POST", "/v2/models/packed/infer", body, fields)
    assert answer.json["outputs"][0]["data"] == [10, 11, 6, 7]


@pytest.mark.parametrize(("choice", "name"), [("trust", "trusted"), ("off", "unsafe"), ("auto", "unsafe")])
def test_a_user_who_knows_better_can_say_so(
    start_server: StartServer, dictionaries: Path, choice: str, name: str
) -> None:
    server = start_server(dictionaries, "--set", f"models.words.batching={choice}", "--report-batches")
    found = ask(server.http, "GET", "/v2/models/words").json["properties"]
    assert found["batching"] == name
    expected = "its settings say" if choice == "off" else "ReduceMean"
    assert expected in found["batching_reason"]
    assert ('batching = \\"trust\\"' in server.log.read_text()) == (choice == "trust")
    assert ('batching = \\"off\\": one request per run' in server.log.read_text()) == (choice == "off")
    assert inspected(dictionaries / "words" / "1" / "model.onnx", choice) == found["batching"]
    answers = ask_each(server, "words", [[Tensor.of("s", word, "BYTES")] for word in (RED, GREEN)])
    # Whoever trusts this model gets what it does: the test proves that requests shared runs.
    assert any((answer != 0).any() for answer in answers) == (choice == "trust")


def inspected(path: Path, choice: str) -> str:
    """What `mlserve inspect` says of a model with this setting."""
    command = [sys.executable, "-m", "mlserve", "inspect", str(path), "--json", "--batching", choice]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["batching_kind"])


@pytest.mark.parametrize(("choice", "name"), [("trust", "trusted"), ("off", "unsafe"), ("auto", "unsafe")])
def test_a_choice_holds_for_dynamically_quantised_models_that_ask_for_batches(
    folder: Path, start_server: StartServer, tmp_path: Path, choice: str, name: str
) -> None:
    copied = tmp_path / "models" / "quantised"
    shutil.copytree(folder / "quantised", copied)
    (copied / "config.pbtxt").write_text("max_batch_size: 8\ndynamic_batching {}\n")
    server = start_server(copied.parent, "--set", f"models.quantised.batching={choice}")
    found = ask(server.http, "GET", "/v2/models/quantised").json["properties"]
    assert found["batching"] == name
    assert ("DynamicQuantizeLinear" in found["batching_reason"]) == (choice != "off")
    config = ask(server.http, "GET", "/v2/models/quantised/config").json
    assert ("dynamic_batching" in config) == (choice == "trust")
    log = server.log.read_text()
    said = {"auto": "dynamic_batching has no effect", "trust": 'batching = \\"trust\\"', "off": 'batching = \\"off\\"'}
    # The advice of `auto` names "trust" as well.
    assert said[choice] in log
    assert "quantised" in log


def test_dynamic_batching_without_effect_is_told_with_what_to_do(start_server: StartServer, dictionaries: Path) -> None:
    config = dictionaries / "words" / "config.pbtxt"
    config.write_text("max_batch_size: 8\ndynamic_batching {}\n")
    try:
        log = start_server(dictionaries).log.read_text()
    finally:
        config.unlink()
    assert "dynamic_batching has no effect" in log
    assert "ReduceMean" in log
    assert "models.words.batching" in log


def test_a_model_with_more_inputs_than_a_request_may_have_is_refused(start_server: StartServer, folder: Path) -> None:
    names = [f"x{number}" for number in range(300)]
    wide = folder.parent / "wide" / "wide" / "1" / "model.onnx"
    wide.parent.mkdir(parents=True)
    nodes = [graphs.node("Sum", names, ["y"])]
    inputs = [graphs.value(name, "FP32", ["n", 1]) for name in names]
    wide.write_bytes(graphs.model(nodes, inputs, [graphs.value("y", "FP32", ["n", 1])]))
    command = [sys.executable, "-m", "mlserve", "serve", str(folder.parent / "wide"), "--http-port", "0"]
    command += ["--grpc-port", "0", "--metrics-port", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the model has 300 inputs, and a request may have 256: set limits.max_tensors = 300" in done.stderr
    server = start_server(folder.parent / "wide", "--set", "limits.max_tensors=300")
    assert ask(server.http, "GET", "/v2/models/wide/ready").status == 200
