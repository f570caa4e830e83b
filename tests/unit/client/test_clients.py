"""The clients over both transports, blocking and asynchronous, against a server in a few lines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlserve import AsyncClient, Client, InferRequest, InferResult
from mlserve.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    MlserveError,
    NotOfferedError,
    QueueFullError,
    RequestCancelledError,
    UnavailableError,
)

if TYPE_CHECKING:
    from tests.unit.client.conftest import Fake

X = np.array([1.5, -2.5], np.float32)
PROTOCOLS = ["grpc", "http"]
Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Calls one method of a fresh client: `ask(url, "infer", …, client={…})`."""

    def blocking(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        with Client(url, **(client or {})) as opened:
            return getattr(opened, method)(*args, **kwargs)

    def asynchronous(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(url, **(client or {})) as opened:
                return await getattr(opened, method)(*args, **kwargs)

        return asyncio.run(call())

    return blocking if request.param == "sync" else asynchronous


def url_of(fake: Fake, protocol: str) -> str:
    return fake.grpc if protocol == "grpc" else fake.http


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestBothTransports:
    def test_an_array_goes_out_and_comes_back(self, fake: Fake, ask: Ask, protocol: str) -> None:
        result = ask(url_of(fake, protocol), "infer", "m", {"x": X}, request_id="r1")
        assert isinstance(result, InferResult)
        np.testing.assert_array_equal(result["y"], X)
        assert (result.model_name, result.model_version, result.id) == ("m", "1", "r1")

    def test_plain_values_take_the_models_name_and_type(self, fake: Fake, ask: Ask, protocol: str) -> None:
        result = ask(url_of(fake, protocol), "infer", "m", [1, 2])
        assert result["y"].dtype == np.float32
        assert fake.metadata_calls == 1

    def test_named_arrays_need_no_question_about_the_model(self, fake: Fake, ask: Ask, protocol: str) -> None:
        ask(url_of(fake, protocol), "infer", "m", {"x": X})
        assert fake.metadata_calls == 0

    def test_a_refusal_is_our_class_with_the_servers_text(self, fake: Fake, ask: Ask, protocol: str) -> None:
        with pytest.raises(QueueFullError, match=r"^the queue is full$") as caught:
            ask(url_of(fake, protocol), "infer", "bad", {"x": X})
        assert caught.value.retryable

    def test_a_deadline_ends_the_wait(self, fake: Fake, ask: Ask, protocol: str) -> None:
        with pytest.raises(DeadlineExceededError):
            ask(url_of(fake, protocol), "infer", "slow", {"x": X}, timeout_s=0.1)

    def test_the_deadline_travels(self, fake: Fake, ask: Ask, protocol: str) -> None:
        ask(url_of(fake, protocol), "infer", "m", {"x": X}, timeout_s=9.0)
        (seen,) = fake.seen
        if protocol == "grpc":
            # Without a deadline it would be endless; the slack is for the clocks, which round.
            assert 0 < seen["left_s"] < 10.0
        else:
            assert seen["headers"]["x-request-timeout-ms"] == "9000"

    def test_headers_travel(self, fake: Fake, ask: Ask, protocol: str) -> None:
        ask(
            url_of(fake, protocol),
            "infer",
            "m",
            {"x": X},
            headers={"Traceparent": "t"},
            client={"headers": {"X-Request-Id": "r"}},
        )
        (seen,) = fake.seen
        assert (seen["headers"]["traceparent"], seen["headers"]["x-request-id"]) == ("t", "r")

    def test_an_unreachable_server_is_unavailable_and_not_live(self, ask: Ask, protocol: str) -> None:
        with socket.socket() as taken:
            # Bound but not listening: nobody answers there, and nobody else can take the port meanwhile.
            taken.bind(("127.0.0.1", 0))
            url = f"{protocol}://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(UnavailableError, match=r"^cannot reach "):
                ask(url, "infer", "m", {"x": X})
            assert ask(url, "is_live") is False
            assert ask(url, "is_ready") is False
            assert ask(url, "is_model_ready", "m") is False

    def test_health_and_metadata_are_told(self, fake: Fake, ask: Ask, protocol: str) -> None:
        url = url_of(fake, protocol)
        assert ask(url, "is_live") is True
        assert ask(url, "is_ready") is True
        assert ask(url, "is_model_ready", "m") is True
        assert ask(url, "is_model_ready", "other") is False
        assert ask(url, "server_metadata").name == "fake"
        found = ask(url, "model_metadata", "m")
        assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in found.inputs] == [("x", "FP32", (-1,))]

    def test_a_closed_client_says_so(self, fake: Fake, protocol: str) -> None:
        client = Client(url_of(fake, protocol))
        client.close()
        with pytest.raises(RequestCancelledError):
            client.infer("m", {"x": X})

    def test_threads_share_a_client_and_get_their_own_answers(self, fake: Fake, protocol: str) -> None:
        def one(value: int) -> bool:
            found = client.infer("m", {"x": np.full(3, value, np.int64)}, request_id=str(value))
            return bool((found["y"] == value).all()) and found.id == str(value)

        with Client(url_of(fake, protocol)) as client, ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(64)))


def test_unknown_compression_is_refused() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match="'brotli'"):
            kind("127.0.0.1:1", compression="brotli")  # type: ignore[arg-type]


def test_grpc_messages_are_compressed_on_request(fake: Fake, ask: Ask) -> None:
    assert ask(fake.grpc, "infer", "m", {"x": X}, client={"compression": "gzip"})["y"].tolist() == X.tolist()


def test_a_new_version_is_noticed_after_a_refusal(fake: Fake) -> None:
    with Client(fake.http) as client:
        client.infer("m", [1.0])
        with pytest.raises(InvalidArgumentError):
            client.infer("m", ["text"])
        client.infer("m", [1.0])
    assert fake.metadata_calls == 2


def test_http_connections_are_kept(fake: Fake) -> None:
    with Client(fake.http) as client:
        for _ in range(5):
            client.infer("m", {"x": X})
    assert fake.connections == 1


def test_a_connection_that_the_server_closed_is_replaced(fake: Fake) -> None:
    fake.close_after_answer = True
    with Client(fake.http) as client:
        for _ in range(3):
            assert client.infer("m", {"x": X})["y"].tolist() == X.tolist()
    assert fake.connections == 3


def test_a_stream_answers_in_order_and_survives_an_error(fake: Fake) -> None:
    requests = [InferRequest(model, {"x": X}, request_id=str(n)) for n, model in enumerate(["m", "bad", "m"])]
    with Client(fake.grpc) as client:
        first, second, third = client.stream_infer(requests)
    assert isinstance(first, InferResult)
    assert isinstance(second, MlserveError)
    assert isinstance(third, InferResult)
    assert (first.id, str(second), third.id) == ("0", "wrong", "2")


def test_an_asynchronous_stream_does_the_same(fake: Fake) -> None:
    async def replies() -> list[InferResult | MlserveError]:
        requests = [InferRequest(model, [1.0], request_id=str(n)) for n, model in enumerate(["m", "bad", "m"])]
        async with AsyncClient(fake.grpc) as client:
            return [reply async for reply in client.stream_infer(requests)]

    assert [type(reply) for reply in run(replies())] == [InferResult, MlserveError, InferResult]


def test_a_stream_can_be_left_early(fake: Fake) -> None:
    with Client(fake.grpc) as client:
        stream = client.stream_infer(InferRequest("m", {"x": X}) for _ in range(1000))
        assert isinstance(next(stream), InferResult)
        stream.close()  # type: ignore[attr-defined]
        assert client.is_live()


def test_http_offers_no_stream(fake: Fake) -> None:
    with Client(fake.http) as client, pytest.raises(NotOfferedError, match="needs gRPC"):
        next(iter(client.stream_infer([])))


def test_cancelling_a_task_cancels_its_call(fake: Fake) -> None:
    async def cancelled() -> bool:
        async with AsyncClient(fake.grpc) as client:
            task = asyncio.create_task(client.infer("slow", {"x": X}))
            await asyncio.to_thread(fake.arrived.wait)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return True
        return False

    assert run(cancelled())
