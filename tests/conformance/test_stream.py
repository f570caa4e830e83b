"""Streaming through the unmodified foreign client: order, errors between answers, and errors that end a stream."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_clients import ANSWER_LIMIT_S, Asked, Reply, stream_aio, stream_all
from tests.reference import assert_same_bits

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server


def numbered(index: int, model: str = "identity_INT64", columns: int = 3, **options: Any) -> Asked:
    array = np.full((1, columns), index, np.int64)
    return Asked(model, {"x": array}, {"x": "INT64"}, options={"request_id": f"request-{index}", **options})


def test_answers_come_in_the_order_of_the_requests(graph_server: ServerProcess) -> None:
    # Widths that change, so that neighbours cannot share a run and later ones may be done earlier.
    requests = [numbered(index, columns=1 + 4_000 * (index % 3)) for index in range(300)]
    replies = stream_all(graph_server.grpc, requests)
    for index, (asked, reply) in enumerate(zip(requests, replies, strict=True)):
        assert isinstance(reply, Reply), reply
        assert reply.id == f"request-{index}"
        assert_same_bits(reply.arrays["y"], asked.inputs["x"], "y")


def test_an_asynchronous_stream_answers_in_order(graph_server: ServerProcess) -> None:
    requests = [numbered(0), numbered(1, model="nobody"), numbered(2)]
    replies = asyncio.run(stream_aio(graph_server.grpc, requests))
    assert [isinstance(reply, Reply) for reply in replies] == [True, False, True]
    assert "Request for unknown model: 'nobody' is not found" in str(replies[1])
    for index in (0, 2):
        reply = replies[index]
        assert isinstance(reply, Reply)
        assert_same_bits(reply.arrays["y"], requests[index].inputs["x"], "y")


def test_every_answer_says_that_it_is_final(graph_server: ServerProcess) -> None:
    (reply,) = stream_all(graph_server.grpc, [numbered(0)])
    assert isinstance(reply, Reply)
    assert reply.parameters["triton_final_response"] is True


def test_who_asks_for_an_empty_final_answer_gets_none_because_each_answer_is_final(graph_server: ServerProcess) -> None:
    # Answers come in order: one too many would be found in the place of the next.
    requests = [numbered(index, enable_empty_final_response=index % 2 == 0) for index in range(4)]
    for index, reply in enumerate(stream_all(graph_server.grpc, requests)):
        assert isinstance(reply, Reply), reply
        assert (reply.id, reply.parameters["triton_final_response"]) == (f"request-{index}", True)
        assert reply.arrays["y"].tolist() == [[index] * 3]


def test_classified_answers_come_on_a_stream_beside_others(graph_server: ServerProcess) -> None:
    array = np.array([[1, 9, 5]], np.int64)
    classified = Asked("identity_INT64", {"x": array}, {"x": "INT64"}, outputs=["y"], classes=2)
    first, second = stream_all(graph_server.grpc, [classified, numbered(7)])
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert first.arrays["y"].tolist() == [[b"9:1", b"5:2"]]
    assert second.arrays["y"].tolist() == [[7, 7, 7]]


def test_an_error_is_an_answer_and_the_stream_goes_on(graph_server: ServerProcess) -> None:
    replies = stream_all(graph_server.grpc, [numbered(0), numbered(1, model="nobody"), numbered(2)])
    assert [isinstance(reply, Reply) for reply in replies] == [True, False, True]
    assert "Request for unknown model: 'nobody' is not found" in str(replies[1])


def test_models_may_change_on_a_stream(graph_server: ServerProcess) -> None:
    scalar = Asked("scalar", {"x": np.array(2.0, np.float32)}, {"x": "FP32"})
    first, second, third = stream_all(graph_server.grpc, [numbered(0), scalar, numbered(2)])
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert isinstance(third, Reply)
    assert [reply.model_name for reply in (first, second, third)] == ["identity_INT64", "scalar", "identity_INT64"]


def refused_by_the_model() -> Asked:
    """Fails in the run: more memory than the server gives."""
    return Asked("large", {"count": np.array([1 << 40])}, {"count": "INT64"})


def test_with_triton_grpc_error_what_is_refused_at_the_door_stays_an_answer(graph_server: ServerProcess) -> None:
    requests = [numbered(0), numbered(1, model="nobody"), numbered(2)]
    replies = stream_all(graph_server.grpc, requests, {"triton_grpc_error": "true"})
    assert [isinstance(reply, Reply) for reply in replies] == [True, False, True]


def test_with_triton_grpc_error_a_failure_of_the_model_ends_the_stream(graph_server: ServerProcess) -> None:
    replies: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(graph_server.grpc) as client:
        client.start_stream(lambda result, error: replies.put((result, error)), headers={"triton_grpc_error": "true"})
        tensor = tritonclient.grpc.InferInput("count", [1], "INT64")
        tensor.set_data_from_numpy(np.array([1 << 40]))
        client.async_stream_infer("large", [tensor])
        result, error = replies.get(timeout=ANSWER_LIMIT_S)
    assert result is None
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"


def test_without_it_a_failure_of_the_model_is_an_answer(graph_server: ServerProcess) -> None:
    replies = stream_all(graph_server.grpc, [refused_by_the_model(), numbered(1)])
    assert [isinstance(reply, Reply) for reply in replies] == [False, True]
