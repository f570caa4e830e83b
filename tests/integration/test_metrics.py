"""Metrics against a client that counts: the sum of all codes is the number of requests, and every name is documented."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import slow_model
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask, connected, head
from tests.raw_http2 import Http2Connection, framed, grpc_call, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
X = Tensor.of("x", np.ones((3, 8), np.float32), "FP32")
SOUND = Inference("mlp", [X])
# Requests of each kind, and the code that they come to.
KINDS: list[tuple[Inference, str, str]] = [
    (SOUND, "mlp", "ok"),
    (Inference("mlp", [Tensor("x", "FP32", (1, 7), bytes(28))]), "mlp", "invalid_argument"),
    (Inference("nobody", [X]), "", "not_found"),
    (Inference("lookup", [Tensor.of("ids", np.array([[0, 99]]), "INT64")]), "lookup", "invalid_argument"),
]
TIMES = 7


@pytest.fixture
def server(start_server: StartServer, graph_folder: Path) -> ServerProcess:
    return start_server(graph_folder, *slow_model.FLAGS)


def test_the_sum_of_codes_is_the_number_of_requests(server: ServerProcess) -> None:
    expected: Counter[tuple[str, str, str]] = Counter()
    for inference, model, code in KINDS:
        body, fields = inference.body()
        for _ in range(TIMES):
            over_http = ask(server.http, "POST", inference.target, body, fields)
            over_grpc = grpc_call(server.grpc, inference.message())
            assert (over_http.headers.get("mlserve-code", "ok"), over_grpc.code or "ok") == (code, code)
            expected.update([(model, "http", code), (model, "grpc", code)])
    for (model, protocol, code), count in expected.items():
        found = metric(server, "mlserve_requests_total", model=model, protocol=protocol, code=code)
        assert found == count, (model, protocol, code)
    assert metric(server, "mlserve_requests_total") == sum(expected.values())
    refused = sum(count for (_, _, code), count in expected.items() if code != "ok")
    assert metric(server, "mlserve_rejected_total") == refused


def test_rows_runs_and_durations_are_counted(server: ServerProcess) -> None:
    for _ in range(TIMES):
        assert grpc_call(server.grpc, SOUND.message()).grpc_status == 0
    assert metric(server, "mlserve_rows_total", model="mlp") == 3 * TIMES
    assert metric(server, "mlserve_runs_total", model="mlp") == TIMES
    for stage in ("request", "queue", "compute"):
        assert metric(server, f"mlserve_{stage}_duration_seconds_count", model="mlp") == TIMES
        assert metric(server, f"mlserve_{stage}_duration_seconds_bucket", model="mlp", le="+Inf") == TIMES
    assert metric(server, "mlserve_batch_rows_sum", model="mlp") == 3 * TIMES
    assert metric(server, "nv_inference_request_success", model="mlp") == TIMES
    assert metric(server, "nv_inference_count", model="mlp") == 3 * TIMES
    assert metric(server, "nv_inference_exec_count", model="mlp") == TIMES
    assert metric(server, "mlserve_inflight_requests") == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_caller_that_is_gone_is_counted_as_cancelled_and_never_runs(
    server: ServerProcess, graph_folder: Path, protocol: str
) -> None:
    turns = slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", 0.8)
    with slow_model.busy(server, turns):
        runs = metric(server, "mlserve_runs_total", model="slow")
        inference = slow_model.inference(1)
        if protocol == "grpc":
            with Http2Connection(server.grpc) as connection:
                connection.send(connection.open(grpc_headers()), framed(inference.message()))
                eventually(lambda: metric(server, "mlserve_queue_depth", model="slow") == 1, limit_s=5, what="queued")
        else:
            body, fields = inference.body()
            with connected(server.http) as opened:
                data = head("POST", inference.target, {**fields, "content-length": str(len(body))}) + body
                opened.sendall(data)
                eventually(lambda: metric(server, "mlserve_queue_depth", model="slow") == 1, limit_s=5, what="queued")
    eventually(
        lambda: metric(server, "mlserve_requests_total", model="slow", protocol=protocol, code="cancelled") == 1,
        limit_s=5,
        what="a cancelled request",
    )
    assert metric(server, "mlserve_runs_total", model="slow") == runs


def test_an_expired_request_never_runs(server: ServerProcess, graph_folder: Path) -> None:
    turns = slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", 0.5)
    with slow_model.busy(server, turns):
        runs = metric(server, "mlserve_runs_total", model="slow")
        assert grpc_call(server.grpc, slow_model.inference(1).message(), grpc_timeout="20m").code == "deadline_exceeded"
        assert grpc_call(server.grpc, slow_model.inference(1, timeout=1_000).message()).code == "queue_timeout"
    assert metric(server, "mlserve_runs_total", model="slow") == runs
    assert metric(server, "nv_inference_request_failure", model="slow", reason="REJECTED") == 1
    assert metric(server, "nv_inference_request_failure", model="slow", reason="OTHER") == 1


def test_connections_are_counted(server: ServerProcess) -> None:
    accepted = metric(server, "mlserve_connections_accepted_total")
    with connected(server.http), connected(server.grpc):
        eventually(lambda: metric(server, "mlserve_connections") == 2, limit_s=5, what="two connections")
    eventually(lambda: metric(server, "mlserve_connections") == 0, limit_s=5, what="no connections")
    assert metric(server, "mlserve_connections_accepted_total") == accepted + 2


def test_what_is_exposed_is_well_formed_and_documented(server: ServerProcess) -> None:
    answer = ask(server.metrics, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", "\n".join(lines), re.MULTILINE))
    helps = {line.split()[2] for line in lines if line.startswith("# HELP ")}
    assert set(types) == helps
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert not [name for name in types if f"`{name}`" not in page]
    seen = set()
    for line in lines:
        if line.startswith("#"):
            continue
        sample, _, value = line.rpartition(" ")
        float(value)
        assert sample not in seen, f"{sample} is there twice"
        seen.add(sample)
        name = sample.partition("{")[0]
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in types or types.get(family) == "histogram", name


def test_names_that_callers_choose_make_no_series(server: ServerProcess) -> None:
    def series() -> int:
        return len(ask(server.metrics, "GET", "/metrics").body.splitlines())

    grpc_call(server.grpc, Inference("nobody", [X]).message())
    ask(server.http, "GET", "/v2/models/nobody")
    before = series()
    for index in range(50):
        grpc_call(server.grpc, Inference(f"nobody-{index}", [X]).message())
        ask(server.http, "GET", f"/v2/models/nobody-{index}/x/{index}")
    assert series() <= before + 5


def test_probes_and_scrapes_have_a_port_of_their_own(server: ServerProcess) -> None:
    for probe in ("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"):
        assert ask(server.metrics, "GET", probe).status == 200
    assert ask(server.metrics, "GET", "/v2/models/mlp").status == 404
    assert ask(server.metrics, "POST", "/metrics").status == 405
