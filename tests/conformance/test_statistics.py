"""Statistics as foreign clients read them: what was counted, by model, version and batch size."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests import slow_model
from tests.conformance.triton_clients import CLIENTS, Asked
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

ALL_DURATIONS = {
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
}
# Counted for each answered request.
PER_ANSWER = ("success", "queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture
def server(start_server: StartServer, graph_folder: Path) -> ServerProcess:
    return start_server(graph_folder, *slow_model.FLAGS)


def over_http(server: ServerProcess, model: str = "", version: str = "") -> list[dict[str, Any]]:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        found: list[dict[str, Any]] = client.get_inference_statistics(model, version)["model_stats"]
        return found


def over_grpc(server: ServerProcess, model: str = "", version: str = "") -> Any:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        return client.get_inference_statistics(model, version).model_stats


def infer(server: ServerProcess, rows: int) -> None:
    asked = Asked("mlp", {"x": np.ones((rows, 8), np.float32)}, {"x": "FP32"})
    CLIENTS["grpc"](server.grpc, asked)
    CLIENTS["http"](server.http, asked)


def test_a_model_that_never_ran_has_every_member_and_zeros(server: ServerProcess) -> None:
    (found,) = over_http(server, "mlp")
    assert (found["name"], found["version"]) == ("mlp", "1")
    assert (found["inference_count"], found["execution_count"], found["last_inference"]) == (0, 0, 0)
    assert found["inference_stats"] == {name: {"count": 0, "ns": 0} for name in ALL_DURATIONS}
    assert (found["batch_stats"], found["response_stats"]) == ([], {})


def test_rows_runs_and_durations_are_told(server: ServerProcess) -> None:
    before = time.time_ns() // 1_000_000
    for rows in (1, 3, 3):
        infer(server, rows)
    after = time.time_ns() // 1_000_000
    (found,) = over_http(server, "mlp")
    assert (found["inference_count"], found["execution_count"]) == (14, 6)
    # The wall clock of the test and that of the server are read a moment apart.
    assert before - 1 <= found["last_inference"] <= after + 1
    durations = found["inference_stats"]
    assert {name: durations[name]["count"] for name in PER_ANSWER} == dict.fromkeys(PER_ANSWER, 6)
    assert all(durations[name]["ns"] > 0 for name in PER_ANSWER)
    parts = sum(durations[name]["ns"] for name in PER_ANSWER[1:])
    assert parts <= durations["success"]["ns"]
    assert durations["fail"] == durations["cache_hit"] == durations["cache_miss"] == {"count": 0, "ns": 0}
    batches = {batch["batch_size"]: batch for batch in found["batch_stats"]}
    assert {rows: batch["compute_infer"]["count"] for rows, batch in batches.items()} == {1: 2, 3: 4}
    for name in ("compute_input", "compute_infer", "compute_output"):
        assert sum(batch[name]["ns"] for batch in batches.values()) == durations[name]["ns"], "nobody shared a run"


def test_memory_is_that_of_the_model_file(server: ServerProcess, graph_folder: Path) -> None:
    (found,) = over_grpc(server, "mlp")
    (usage,) = found.memory_usage
    file = graph_folder / "mlp" / "1" / "model.onnx"
    assert (usage.type, usage.id, usage.byte_size) == ("CPU", 0, file.stat().st_size)


def test_both_protocols_tell_the_same(server: ServerProcess) -> None:
    infer(server, 2)
    (http,), (grpc,) = over_http(server, "mlp"), over_grpc(server, "mlp")
    assert http["last_inference"] == grpc.last_inference
    for name in ALL_DURATIONS:
        duration = getattr(grpc.inference_stats, name)
        assert http["inference_stats"][name] == {"count": duration.count, "ns": duration.ns}
    assert [batch["batch_size"] for batch in http["batch_stats"]] == [batch.batch_size for batch in grpc.batch_stats]


def test_only_valid_requests_fail(server: ServerProcess, graph_folder: Path) -> None:
    invalid = Inference("slow", [Tensor("turns", "INT64", (1,), bytes(4))])
    assert grpc_call(server.grpc, invalid.message()).code == "invalid_argument"
    (found,) = over_http(server, "slow")
    assert found["inference_stats"]["fail"]["count"] == 0
    turns = slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", 0.8)
    with slow_model.busy(server, turns):
        late = grpc_call(server.grpc, slow_model.inference(1, timeout=2_000).message())
        assert late.code == "queue_timeout"
    (found,) = over_http(server, "slow")
    assert found["inference_stats"]["fail"]["count"] == 1
    assert found["inference_stats"]["fail"]["ns"] >= 2_000_000, "it waited that long"


def test_all_models_are_told_in_the_order_of_their_names(server: ServerProcess) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        assert client.is_model_ready("mlp")
    names = [found["name"] for found in over_http(server)]
    assert names == sorted(names)
    assert {"mlp", "slow"} <= set(names)
    assert names == [found.name for found in over_grpc(server)]


@pytest.mark.parametrize("ask", [over_http, over_grpc])
@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nobody", "", "requested model 'nobody' is not available"),
        ("mlp", "9", "requested model version is not available for model 'mlp'"),
    ],
)
def test_what_is_not_there_is_a_mistake_of_the_caller(
    server: ServerProcess, ask: Callable[..., Any], model: str, version: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(server, model, version)
    assert caught.value.message() == text
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}


def test_a_crowd_shares_the_work_and_each_caller_sees_what_was_answered_before(server: ServerProcess) -> None:
    lock, answered = threading.Lock(), [0]

    def ask(over: Callable[[ServerProcess], Any], read: Callable[[Any], list[int]]) -> None:
        for _ in range(5):
            infer(server, 1)
            with lock:
                answered[0] += 2
            before = answered[0]
            (count,) = read(over(server))
            assert count >= before

    def of_messages(found: Any) -> list[int]:
        return [each.inference_count for each in found if each.name == "mlp"]

    def of_json(found: Any) -> list[int]:
        return [each["inference_count"] for each in found if each["name"] == "mlp"]

    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(ask, *way) for way in [(over_grpc, of_messages), (over_http, of_json)] * 5]
        for each in asked:
            each.result()
    assert of_messages(over_grpc(server)) == of_json(over_http(server)) == [100]
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/comm")
    assert sum(task.read_text() == "statistics\n" for task in tasks) == 2, "one for each transport"
