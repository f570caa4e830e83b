"""A fault on order at every stage: it costs what it touches, and the next request is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import graphs
from tests.conftest import ServerProcess, eventually, serving
from tests.oracle import metric
from tests.raw_http2 import Http2Answer, grpc_call
from tests.requests_by_hand import Inference, Tensor

pytestmark = pytest.mark.server

LIMIT_S = 20.0
# The stages that a request meets, and on which lane.
BOTH = ["decode", "grpc_reply", "admit", "plan", "validate", "flush", "gather", "run", "scatter", "deliver"]
STAGES = [
    *((stage, model) for stage in BOTH for model in ["inline", "pooled"]),
    ("inline", "inline"),
    ("push", "pooled"),
    ("next", "pooled"),
    ("instance_start", "pooled"),
    ("instance", "pooled"),
]


def orders(folder: Path) -> str:
    """Each stage panics as long as its file is there; a thread that cannot be started is an error, not a panic."""
    stages = sorted({stage for stage, _ in STAGES} | {"expire"})
    action = {"instance_start": "error"}
    return "; ".join(f"{stage} {action.get(stage, 'panic')} while {folder / stage}" for stage in stages)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder; a file there named like a stage makes that stage fail."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Iterator[ServerProcess]:
    """One model that runs on the loop, and the same one with one instance."""
    folder = tmp_path_factory.mktemp("models")
    for name in ["inline", "pooled"]:
        graphs.write(folder, name, graphs.identity("FP32"))
    pooled = ["--set", "models.pooled.inline=false", "--set", "models.pooled.instances=1"]
    with serving(tmp_path_factory.mktemp("panics")) as start:
        yield start(folder, "--set", "server.event_loops=1", *pooled, env={"FAILPOINTS": orders(faults)})


def ask(server: ServerProcess, model: str) -> Http2Answer:
    """One row, with a deadline that only a hanging server reaches."""
    message = Inference(model, [Tensor.of("x", np.ones((1, 2), np.float32), "FP32")]).message()
    return grpc_call(server.grpc, message, grpc_timeout="10S")


def first_to_fail(server: ServerProcess, model: str) -> Http2Answer:
    """Asks until the fault is met: an instance that waits already takes one more, and unsteady times go to the pool."""
    answers: list[Http2Answer] = []

    def fails() -> bool:
        answers.append(ask(server, model))
        return answers[-1].grpc_status != 0

    eventually(fails, limit_s=LIMIT_S, what="a request meets the fault")
    return answers[-1]


def panics(server: ServerProcess) -> float:
    """All that were counted."""
    return metric(server, "mlserve_panics_total")


@pytest.mark.parametrize(("stage", "model"), STAGES)
def test_a_fault_costs_the_request_that_it_touches(server: ServerProcess, faults: Path, stage: str, model: str) -> None:
    assert ask(server, model).grpc_status == 0
    before = panics(server)
    if stage == "instance_start":
        # The instance that lingers would take the request: it is made to end first, when it comes back for more.
        (faults / "next").touch()
        ask(server, model)
        eventually(lambda: panics(server) > before, limit_s=LIMIT_S, what="the instance has ended")
        (faults / "next").unlink()
    order = faults / stage
    order.touch()
    try:
        touched = first_to_fail(server, model)
    finally:
        order.unlink()
    assert touched.grpc_status != 4, "it does not wait for its deadline"
    assert touched.reset is not None or touched.grpc_status in {13, 14}, touched.grpc_text
    if stage != "instance_start":
        eventually(lambda: panics(server) > before, limit_s=LIMIT_S, what="the panic is counted")
    for _ in range(3):
        assert ask(server, model).grpc_status == 0, "the next request is answered"
    assert ask(server, "pooled").grpc_status == 0


def test_requests_beside_a_fault_are_answered(server: ServerProcess, faults: Path) -> None:
    (faults / "run").touch()
    try:
        assert ask(server, "pooled").grpc_status == 13
    finally:
        (faults / "run").unlink()
    assert ask(server, "inline").grpc_status == 0
