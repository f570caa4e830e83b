"""System shared memory with stock tritonclient over both transports: what goes in comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http2 import grpc_call
from tests.regions import MakeRegion, module, place_input, place_output, status
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def described(result: Any, name: str) -> tuple[str, list[int]]:
    """Type and shape that an answer gives for an output."""
    found = result.get_output(name)
    if isinstance(found, dict):
        assert set(found) == {"name", "datatype", "shape"}
        return found["datatype"], found["shape"]
    assert not found.parameters
    assert list(result.get_response().raw_output_contents) == [b""] * len(result.get_response().outputs)
    return found.datatype, list(found.shape)


def test_tensors_go_both_ways(region_client: Any, make_region: MakeRegion) -> None:
    made = make_region(128)
    made.put(X, offset=16)
    region_client.register_system_shared_memory("tensors", made.key, 128)
    inputs = [place_input(region_client, "x", X, "FP32", "tensors", X.nbytes, 16)]
    outputs = [place_output(region_client, "y", "tensors", X.nbytes, 64)]
    result = region_client.infer("identity_FP32", inputs, outputs=outputs)
    assert described(result, "y") == ("FP32", [2, 4])
    assert np.array_equal(made.get(np.float32, (2, 4), 64), X)


def test_a_region_may_begin_inside_its_object(region_client: Any, make_region: MakeRegion) -> None:
    made = make_region(100)
    made.put(X, offset=52)
    region_client.register_system_shared_memory("part", made.key, 48, offset=52)
    result = region_client.infer("identity_FP32", [place_input(region_client, "x", X, "FP32", "part", X.nbytes, 0)])
    assert np.array_equal(result.as_numpy("y"), X)


def test_texts_go_both_ways(region_client: Any, make_region: MakeRegion) -> None:
    texts = np.array([["", "a"], ["größe", "x" * 40]], np.object_)
    serialized = serialize_byte_tensor(texts)
    size = len(serialized.item())
    made = make_region(2 * size)
    made.put(serialized)
    region_client.register_system_shared_memory("texts", made.key, 2 * size)
    inputs = [place_input(region_client, "x", texts, "BYTES", "texts", size)]
    region_client.infer("identity_BYTES", inputs, outputs=[place_output(region_client, "y", "texts", size, size)])
    found = made.get(np.object_, (2, 2), size).reshape(2, 2)
    assert [[text.decode() for text in row] for row in found] == texts.tolist()


def test_some_tensors_may_travel_and_others_not(region_client: Any, make_region: MakeRegion) -> None:
    made = make_region(64)
    ids = np.array([[1, 2, 3]], np.int64)
    made.put(ids)
    region_client.register_system_shared_memory("ids", made.key, 64)
    x = module(region_client).InferInput("x", [1, 2, 2], "FP32")
    x.set_data_from_numpy(np.ones((1, 2, 2), np.float32))
    name = module(region_client).InferInput("name", [1, 1], "BYTES")
    name.set_data_from_numpy(np.array([["a"]], np.object_))
    inputs = [x, place_input(region_client, "ids", ids, "INT64", "ids", 24), name]
    outputs = [
        module(region_client).InferRequestedOutput("marked"),
        place_output(region_client, "total", "ids", 8, 32),
        module(region_client).InferRequestedOutput("doubled"),
    ]
    result = region_client.infer("mixed", inputs, outputs=outputs)
    assert result.as_numpy("marked").tolist() == [[b"a!"]]
    assert np.array_equal(result.as_numpy("doubled"), np.full((1, 2, 2), 2, np.float32))
    assert made.get(np.int64, (1,), 32).tolist() == [6]


def test_what_is_long_goes_another_way_and_comes_out_the_same(region_client: Any, make_region: MakeRegion) -> None:
    # More than the loop copies, and more rows than one run takes.
    array = np.random.default_rng(3).standard_normal((300, 4096)).astype(np.float32)
    made = make_region(2 * array.nbytes)
    made.put(array)
    region_client.register_system_shared_memory("long", made.key, made.byte_size)
    inputs = [place_input(region_client, "x", array, "FP32", "long", array.nbytes)]
    outputs = [place_output(region_client, "y", "long", array.nbytes, array.nbytes)]
    region_client.infer("identity_FP32", inputs, outputs=outputs)
    assert np.array_equal(made.get(np.float32, array.shape, array.nbytes), array)


def test_a_stream_takes_them_too(region_server: ServerProcess, make_region: MakeRegion) -> None:
    made = make_region(256)
    made.put(X)
    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(region_server.grpc) as client:
        client.register_system_shared_memory("stream", made.key, 256)
        client.start_stream(lambda result, error: answers.append((result, error)))
        places = [("stream", X.nbytes, 64), ("stream", 8, 128), ("nobody", X.nbytes, 0), ("stream", X.nbytes, 192)]
        for index, place in enumerate(places):
            inputs = [place_input(client, "x", X, "FP32", "stream", X.nbytes)]
            outputs = [place_output(client, "y", *place)]
            client.async_stream_infer("identity_FP32", inputs, outputs=outputs, request_id=str(index))
        eventually(lambda: len(answers) == 4, limit_s=10, what="four answers")
        client.stop_stream()
        client.unregister_system_shared_memory("stream")
    assert [error is None for _, error in answers] == [True, False, False, True]
    assert "should be at least 32 bytes" in str(answers[1][1])
    for offset in (64, 192):
        assert np.array_equal(made.get(np.float32, (2, 4), offset), X)


def test_regions_are_listed_and_forgotten(region_client: Any, make_region: MakeRegion) -> None:
    made = make_region(64)
    assert status(region_client) == {}
    region_client.register_system_shared_memory("a", made.key, 64)
    region_client.register_system_shared_memory("b", made.key, 16, offset=8)
    assert status(region_client) == {"a": (made.key, 0, 64), "b": (made.key, 8, 16)}
    assert status(region_client, "b") == {"b": (made.key, 8, 16)}
    with pytest.raises(InferenceServerException, match="already in manager"):
        region_client.register_system_shared_memory("a", made.key, 64)
    region_client.unregister_system_shared_memory("a")
    region_client.unregister_system_shared_memory("a")
    assert status(region_client) == {"b": (made.key, 8, 16)}
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory region"):
        status(region_client, "a")
    region_client.unregister_system_shared_memory()
    assert status(region_client) == {}


def test_cuda_regions_are_not_there(region_client: Any) -> None:
    found = region_client.get_cuda_shared_memory_status()
    assert not (found if isinstance(found, list) else found.regions)
    region_client.unregister_cuda_shared_memory()
    region_client.unregister_cuda_shared_memory("secret")
    with pytest.raises(InferenceServerException, match="CUDA shared memory is not available") as refused:
        region_client.register_cuda_shared_memory("secret", b"aGFuZGxl", 0, 64)
    assert "secret" not in str(refused.value)


def test_an_object_that_shrinks_fails_its_requests_and_nothing_else(
    region_client: Any, region_server: ServerProcess, make_region: MakeRegion
) -> None:
    made = make_region(8192)
    other = make_region(64)
    other.put(X)
    region_client.register_system_shared_memory("shrinks", made.key, 8192)
    region_client.register_system_shared_memory("stays", other.key, 64)
    os.truncate(made.path, 4096)
    rows = np.zeros((1, 1024), np.float32)
    x = module(region_client).InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(X)
    with pytest.raises(InferenceServerException, match="shared memory of input 'x' cannot be read"):
        region_client.infer("identity_FP32", [place_input(region_client, "x", rows, "FP32", "shrinks", 4096, 4096)])
    with pytest.raises(InferenceServerException, match="shared memory of output 'y' cannot be written"):
        region_client.infer("identity_FP32", [x], outputs=[place_output(region_client, "y", "shrinks", 32, 4096)])
    assert made.path.stat().st_size == 4096, "the server does not make it larger again"
    result = region_client.infer("identity_FP32", [place_input(region_client, "x", X, "FP32", "stays", 32)])
    assert np.array_equal(result.as_numpy("y"), X)
    # What is mapped by this test must be there when the test ends.
    os.truncate(made.path, 8192)
    assert region_server.process.poll() is None


def test_a_region_that_is_forgotten_meanwhile_stays_with_the_request(
    region_server: ServerProcess, make_region: MakeRegion
) -> None:
    made = make_region(16)
    made.put(np.array([3_000_000], np.int64))
    asked = Inference(
        "slow", [Tensor("turns", "INT64", (1,), b"", made.place("r", 0, 8))], {"y": made.place("r", 8, 4)}
    )
    with tritonclient.grpc.InferenceServerClient(region_server.grpc) as client:
        client.register_system_shared_memory("r", made.key, 16)
        inputs = [place_input(client, "turns", np.zeros(1), "INT64", "r", 8)]
        answers: list[Any] = []
        outputs = [place_output(client, "y", "r", 4, 8)]
        client.async_infer(
            "slow", inputs, outputs=outputs, callback=lambda result, error: answers.append((result, error))
        )
        eventually(
            lambda: metric(region_server, "mlserve_inflight_requests") > 0, limit_s=10, what="a request in flight"
        )
        client.unregister_system_shared_memory("r")
        made.path.unlink()
        eventually(lambda: bool(answers), limit_s=20, what="the answer")
    assert answers[0][1] is None, answers
    assert made.get(np.float32, (1,), 8)[0] != 0
    assert grpc_call(region_server.grpc, asked.message()).grpc_status == 5
    made.path.touch()


def test_the_budget_covers_what_is_read(start_server: StartServer, graph_folder: Path, make_region: MakeRegion) -> None:
    flags = ["--allow-client-shm", "--byte-budget", "1000000", "--max-body-bytes", "1000000"]
    server = start_server(graph_folder / "identity_FP32", *flags)
    made = make_region(1_000_000)
    with tritonclient.http.InferenceServerClient(server.http) as client:
        client.register_system_shared_memory("r", made.key, 1_000_000)
        array = np.zeros((1, 250_000), np.float32)
        # With what the request itself has it is too much.
        with pytest.raises(InferenceServerException, match="byte budget") as refused:
            client.infer("identity_FP32", [place_input(client, "x", array, "FP32", "r", 1_000_000)])
        assert refused.value.status() == "503"
        small = np.zeros((1, 4), np.float32)
        client.infer("identity_FP32", [place_input(client, "x", small, "FP32", "r", 16)])


def test_regions_have_the_limits_of_bodies(
    start_server: StartServer, graph_folder: Path, make_region: MakeRegion
) -> None:
    """156 bytes that name a large region are a large request."""
    flags = ["--allow-client-shm", "--max-body-bytes", "100000", "--max-response-bytes", "50000"]
    server = start_server(graph_folder / "identity_FP32", *flags)
    made = make_region(1 << 20)
    for client in (
        tritonclient.http.InferenceServerClient(server.http),
        tritonclient.grpc.InferenceServerClient(server.grpc),
    ):
        client.unregister_system_shared_memory()
        client.register_system_shared_memory("r", made.key, 1 << 20)
        large = np.zeros((1, 25_001), np.float32)
        with pytest.raises(InferenceServerException, match=r"limits\.max_body_bytes") as refused:
            client.infer("identity_FP32", [place_input(client, "x", large, "FP32", "r", large.nbytes)])
        assert refused.value.status() in {"413", "StatusCode.RESOURCE_EXHAUSTED"}
        middle = np.ones((1, 20_000), np.float32)
        made.put(middle)
        x = place_input(client, "x", middle, "FP32", "r", middle.nbytes)
        output = place_output(client, "y", "r", middle.nbytes, 1 << 19)
        with pytest.raises(InferenceServerException, match=r"limits\.max_response_bytes"):
            client.infer("identity_FP32", [x], outputs=[output])
        assert not made.get(np.float32, (20_000,), 1 << 19).any(), "nothing was written"
