"""Every row of the error table, provoked on both transports: the same row, the statuses of the table, the same text.

A row that nothing here provokes fails the test, unless `NOT_OBSERVABLE` says why no client can see it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mlserve import _core
from tests import graphs, slow_model
from tests.conftest import eventually, serving
from tests.oracle import metric
from tests.raw_http import HttpAnswer, ask, connected, head, read_answer
from tests.raw_http2 import Http2Answer, Http2Connection, grpc_call, grpc_headers, http_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

TABLE = {str(row["code"]): row for row in _core.error_table()}
NOT_OBSERVABLE = {
    "cancelled": "the caller is gone, so nobody reads the answer; test_metrics sees it counted",
    "draining": "HTTP and unary calls in flight are answered and new ones not accepted; test_shutdown sees it end a stream",
}
# These are refused before a request of the protocol exists, so each transport speaks of its own parts.
OWN_WORDS = {"unknown_route", "method_not_allowed", "headers_too_large"}
MODELS = ("mlp", "slow", "large", "identity_BYTES", "identity_FP32")
# About how long the slow run lasts: longer than anything that is asked while it runs.
BUSY_S = 1.0
X = Tensor.of("x", np.ones((1, 8), np.float32), "FP32")


@dataclass(frozen=True)
class Servers:
    """One whose limits are low, and one that takes one request and few bytes at a time."""

    limited: ServerProcess
    tiny: ServerProcess
    slow_path: Path

    @property
    def turns(self) -> int:
        return slow_model.turns_for(self.slow_path, BUSY_S)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), MODELS)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    limits = ["--max-string-bytes", "1000", "--max-header-bytes", "8192", "--body-grace-ms", "100"]
    limits += ["--arena-bytes", str(64 << 20), "--set", "models.slow.queue_capacity=1"]
    tiny = ["--event-loops", "1", "--requests-in-flight", "1", "--max-body-bytes", "100000", "--byte-budget", "100000"]
    with serving(tmp_path_factory.mktemp("servers")) as start:
        yield Servers(
            start(folder, *slow_model.FLAGS, *limits),
            start(folder, *slow_model.FLAGS, *tiny),
            folder / "slow" / "1" / "model.onnx",
        )


Both = tuple[HttpAnswer, Http2Answer]


def both(server: ServerProcess, inference: Inference, http: str = "", grpc: str = "") -> Both:
    """One inference over both transports; `http` and `grpc`: milliseconds and `grpc-timeout` that the caller waits."""
    body, fields = inference.body()
    waits = {"x-request-timeout-ms": http} if http else {}
    over_http = ask(server.http, "POST", inference.target, body, {**fields, **waits})
    return over_http, grpc_call(server.grpc, inference.message(), **({"grpc_timeout": grpc} if grpc else {}))


def invalid_argument(servers: Servers) -> Both:
    return both(servers.limited, Inference("mlp", [Tensor("x", "FP32", (1, 7), b"\0" * 28)]))


def not_found(servers: Servers) -> Both:
    return both(servers.limited, Inference("nobody", [X]))


def unknown_route(servers: Servers) -> Both:
    over_http = ask(servers.limited.http, "GET", "/v2/nowhere")
    return over_http, grpc_call(servers.limited.grpc, b"", "/inference.GRPCInferenceService/Nothing")


def method_not_allowed(servers: Servers) -> Both:
    over_http = ask(servers.limited.http, "GET", "/v2/models/mlp/infer")
    with Http2Connection(servers.limited.grpc) as connection:
        header = [(name, "GET" if name == ":method" else value) for name, value in grpc_headers()]
        return over_http, connection.answer(connection.open(header, end=True))


def not_allowed(servers: Servers) -> Both:
    page = "http://evil.example"
    over_http = ask(servers.limited.http, "POST", "/v2/logging", headers={"origin": page})
    return over_http, grpc_call(servers.limited.grpc, b"", "/inference.GRPCInferenceService/LogSettings", origin=page)


def too_large(servers: Servers) -> Both:
    text = np.array([[b"x" * 1_001]], np.object_)
    return both(servers.limited, Inference("identity_BYTES", [Tensor.of("x", text, "BYTES")]))


def headers_too_large(servers: Servers) -> Both:
    over_http = ask(servers.limited.http, "GET", "/v2/health/live", headers={"x-long": "a" * 9_000})
    return over_http, grpc_call(servers.limited.grpc, b"", x_long="a" * 9_000)


def slow_client(servers: Servers) -> Both:
    with connected(servers.limited.http) as opened:
        opened.sendall(head("POST", "/v2/models/mlp/infer", {"content-length": "100"}) + b"{")
        over_http = read_answer(opened)
        assert over_http is not None
    with Http2Connection(servers.limited.grpc) as connection:
        stream = connection.open(grpc_headers())
        connection.send(stream, b"\0\0\0\0\x64a", end=False)
        return over_http, connection.answer(stream)


def queue_full(servers: Servers) -> Both:
    with slow_model.busy(servers.limited, servers.turns, waiting=1):
        return both(servers.limited, slow_model.inference(1))


def queue_timeout(servers: Servers) -> Both:
    with slow_model.busy(servers.limited, servers.turns):
        return both(servers.limited, slow_model.inference(1, timeout=1_000))


def deadline_exceeded(servers: Servers) -> Both:
    with slow_model.busy(servers.limited, servers.turns):
        return both(servers.limited, slow_model.inference(1), http="20", grpc="20m")


def too_many_requests(servers: Servers) -> Both:
    with slow_model.busy(servers.tiny, servers.turns):
        return both(servers.tiny, Inference("mlp", [X]))


def out_of_budget(servers: Servers) -> Both:
    inference = Inference("identity_FP32", [Tensor("x", "FP32", (1, 5_000), b"\0" * 20_000)])
    with connected(servers.tiny.http) as holder:
        # What has come is held until the rest comes.
        announced = head("POST", "/v2/models/identity_FP32/infer", {"content-length": "95000"})
        holder.sendall(announced + b" " * 94_999)
        eventually(
            lambda: metric(servers.tiny, "mlserve_budget_bytes") >= 94_999, limit_s=5, what="the budget to be held"
        )
        return both(servers.tiny, inference)


def not_ready(servers: Servers) -> Both:
    return both(servers.limited, Inference("broken", [X]))


def model_control(servers: Servers) -> Both:
    over_http = ask(servers.limited.http, "POST", "/v2/repository/models/mlp/load")
    load = b"\x12\x03mlp"
    return over_http, grpc_call(servers.limited.grpc, load, "/inference.GRPCInferenceService/RepositoryModelLoad")


def not_offered(servers: Servers) -> Both:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 12}
    inference = Inference("mlp", [X], outputs={"probabilities": place})
    return both(servers.limited, inference)


def internal(servers: Servers) -> Both:
    # Each of the two outputs fits in the memory for tensors, both do not.
    return both(servers.limited, Inference("large", [Tensor.of("count", np.array([10_000_000]), "INT64")]))


PROVOCATIONS: dict[str, Callable[[Servers], Both]] = {
    provoke.__name__: provoke
    for provoke in [
        invalid_argument,
        not_found,
        unknown_route,
        method_not_allowed,
        not_allowed,
        too_large,
        headers_too_large,
        slow_client,
        queue_full,
        queue_timeout,
        deadline_exceeded,
        too_many_requests,
        out_of_budget,
        not_ready,
        model_control,
        not_offered,
        internal,
    ]
}


def test_every_row_of_the_table_is_provoked_or_excused() -> None:
    assert set(PROVOCATIONS) | set(NOT_OBSERVABLE) == set(TABLE)
    assert not set(PROVOCATIONS) & set(NOT_OBSERVABLE)


@pytest.mark.parametrize("code", PROVOCATIONS)
def test_both_transports_refuse_alike(servers: Servers, code: str) -> None:
    row = TABLE[code]
    over_http, over_grpc = PROVOCATIONS[code](servers)
    found = (over_http.status, over_grpc.grpc_status)
    assert found == (row["http"], row["grpc"]), (over_http, over_grpc)
    assert (over_http.headers.get("mlserve-code"), over_grpc.code) == (code, code)
    assert over_http.headers["content-type"] == "application/json"
    assert ("retry-after" in over_http.headers) == (row["retry"] == "yes")
    assert over_http.text
    if code in OWN_WORDS:
        assert over_grpc.grpc_text
    else:
        # Messages and bodies differ in size, and only in that.
        assert re.sub(r"\d+", "N", over_http.text) == re.sub(r"\d+", "N", over_grpc.grpc_text)


def test_nothing_internal_is_told(servers: Servers) -> None:
    over_http, over_grpc = internal(servers)
    for text in (over_http.text, over_grpc.grpc_text):
        assert not re.search(r"/|::|\.cc|onnxruntime|0x", text), text


def test_rest_over_http2_refuses_like_http1(servers: Servers) -> None:
    body, fields = Inference("nobody", [X]).body()
    over_http1 = ask(servers.limited.http, "POST", "/v2/models/nobody/infer", body, fields)
    over_http2 = http_call(servers.limited.http, "POST", "/v2/models/nobody/infer", body, fields)
    assert (over_http2.status, over_http2.text) == (over_http1.status, over_http1.text)
    assert over_http2.headers["mlserve-code"] == over_http1.headers["mlserve-code"]
