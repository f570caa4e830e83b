"""Ways of asking beside a plain call: in the background, from several threads, with a body made apart, with a deadline."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.auth
import tritonclient.http
import tritonclient.http.auth
from tritonclient.utils import InferenceServerException

from tests import slow_model
from tests.conformance.triton_clients import ANSWER_LIMIT_S, MODULES, Asked, Reply
from tests.raw_http import ask as ask_http

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

Ask = Callable[[Asked], Reply]


def numbered(module: Any, value: int) -> list[Any]:
    """The inputs of a request that can be told from its neighbours."""
    tensor = module.InferInput("x", [1, 4], "INT64")
    tensor.set_data_from_numpy(np.full((1, 4), value, np.int64))
    return [tensor]


def assert_own(result: Any, value: int) -> None:
    """The answer is that of the request with this value."""
    np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), value))


def test_grpc_calls_back_with_each_answer(graph_server: ServerProcess) -> None:
    replies: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(graph_server.grpc) as client:
        for value in range(50):
            client.async_infer(
                "identity_INT64",
                numbered(tritonclient.grpc, value),
                lambda result, error, value=value: replies.put((value, result, error)),
            )
        found = [replies.get(timeout=ANSWER_LIMIT_S) for _ in range(50)]
    for value, result, error in found:
        assert error is None
        assert_own(result, value)
    assert {value for value, _, _ in found} == set(range(50))


def test_http_hands_out_answers_in_the_future(graph_server: ServerProcess) -> None:
    with tritonclient.http.InferenceServerClient(graph_server.http, concurrency=8) as client:
        calls = [client.async_infer("identity_INT64", numbered(tritonclient.http, value)) for value in range(50)]
        for value, call in enumerate(calls):
            assert_own(call.get_result(), value)


def test_threads_share_a_grpc_client(graph_server: ServerProcess) -> None:
    def one(value: int) -> None:
        assert_own(client.infer("identity_INT64", numbered(tritonclient.grpc, value)), value)

    with tritonclient.grpc.InferenceServerClient(graph_server.grpc) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(100)))


def test_a_body_made_apart_is_answered_and_read_apart(graph_server: ServerProcess) -> None:
    kind = tritonclient.http.InferenceServerClient
    body, json_size = kind.generate_request_body(numbered(tritonclient.http, 7))
    fields = {"Inference-Header-Content-Length": str(json_size)} if json_size else {}
    reply = ask_http(graph_server.http, "POST", "/v2/models/identity_INT64/infer", body, fields)
    length = reply.headers["inference-header-content-length"]
    assert_own(kind.parse_response_body(reply.body, header_length=int(length)), 7)


@pytest.mark.parametrize("client", ["grpc", "http"])
def test_headers_that_a_plugin_adds_do_no_harm(graph_server: ServerProcess, client: str) -> None:
    module = MODULES[client]
    address = graph_server.http if client == "http" else graph_server.grpc
    with module.InferenceServerClient(address) as opened:
        opened.register_plugin(module.auth.BasicAuth("user", "word"))
        assert_own(opened.infer("identity_INT64", numbered(module, 7)), 7)
        opened.unregister_plugin()


@pytest.mark.parametrize("ask", ["grpc", "grpc_aio"], indirect=True)
def test_a_clients_deadline_ends_the_wait(ask: Ask, graph_folder: Path) -> None:
    turns = slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", 1.0)
    asked = Asked("slow", {"turns": np.array([turns])}, {"turns": "INT64"}, options={"client_timeout": 0.05})
    # Client and server both end it at the deadline; whose word comes first is a matter of microseconds.
    with pytest.raises(InferenceServerException, match=r"Deadline Exceeded|the deadline passed") as caught:
        ask(asked)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_a_cancelled_stream_leaves_the_server_as_it_was(graph_server: ServerProcess) -> None:
    replies: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(graph_server.grpc) as client:
        client.start_stream(lambda result, error: replies.put((result, error)))
        for value in range(20):
            client.async_stream_infer("identity_INT64", numbered(tritonclient.grpc, value))
        client.stop_stream(cancel_requests=True)
        assert_own(client.infer("identity_INT64", numbered(tritonclient.grpc, 99)), 99)


@pytest.mark.parametrize("client", list(MODULES))
def test_every_method_of_the_foreign_client_is_tried(client: str) -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    kind = MODULES[client].InferenceServerClient
    methods = {name for name in dir(kind) if not name.startswith("_")}
    # All are closed by leaving their `with`.
    missing = {
        name for name in methods - {"close", "plugin"} if f'"{name}"' not in sources and f".{name}(" not in sources
    }
    assert not missing
