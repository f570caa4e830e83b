"""Each stage of a request fails in each way, on order: what it touched is told, all others are answered, the end comes."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs, repositories
from tests.attacks.harness.aim import grpc_outcome, http_outcome, probe
from tests.attacks.harness.start import served
from tests.conftest import eventually
from tests.raw_http2 import Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

# Through which every request goes, whatever its lane; in the order of its life.
STAGES = [
    "decode",
    "admit",
    "plan",
    "validate",
    "flush",
    "inline",
    "push",
    "next",
    "instance_start",
    "instance",
    "gather",
    "run",
    "scatter",
    "deliver",
    "grpc_reply",
    "http_reply",
]
# Two of each, so that the requests beside the one that is hit are there.
MODELS = ("identity_FP32", "add_FP32")
FLAGS = (
    "--set",
    "models.add_FP32.inline=false",
    "--set",
    "models.add_FP32.instances=2",
    "--drain-notice-ms",
    "0",
    "--drain-timeout-ms",
    "2000",
    "--default-deadline-ms",
    "5000",
)
SENT = Tensor.of("x", np.ones((1, 3), np.float32), "FP32")
REQUESTS = {
    "identity_FP32": Inference("identity_FP32", [SENT]),
    "add_FP32": Inference("add_FP32", [Tensor.of(name, np.ones((1, 3), np.float32), "FP32") for name in ("a", "b")]),
}
# What a request that is hit may hear: an error, or that its connection is gone.
TOLD = {"internal", "closed", "reset", "not_ready", "deadline_exceeded"}
ROUNDS = 4
# Requests between two faults, so that one is over before the next one comes.
APART = 3
# Short runs, after which a model runs on the loop.
TAUGHT = 60
LIMIT_S = 10.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.write_all(tmp_path_factory.mktemp("models"), MODELS)


def fault(stage: str, action: str) -> str:
    """A thread that cannot be started is an error; nothing there can panic."""
    return "error" if stage == "instance_start" else action


def ask_all(server: ServerProcess) -> Counter[str]:
    """One request for each model over each protocol, each on a connection of its own."""
    found: Counter[str] = Counter()
    for inference in REQUESTS.values():
        found[grpc_outcome(server.grpc, inference.message())] += 1
        body, fields = inference.body()
        named = {name.replace("-", "_"): value for name, value in fields.items()}
        found[http_outcome(server.http, "POST", inference.target, body, **named)] += 1
    return found


def check_probes(server: ServerProcess, *, live: int = 200, ready: int = 200) -> None:
    for path, status in (("/livez", live), ("/readyz", ready)):
        eventually(
            lambda path=path, status=status: probe(server.metrics, path, LIMIT_S) == status,  # type: ignore[misc]
            limit_s=LIMIT_S,
            what=f"{path} says {status}",
        )


@pytest.mark.parametrize("action", ["panic", "error"])
def test_one_fault_is_told_to_whom_it_touched_and_nobody_else(tmp_path: Path, models: Path, action: str) -> None:
    """Every stage fails once, one after the other: as many requests hear of it, at most."""
    stages = [stage for stage in STAGES if fault(stage, action) == action]
    orders = ";".join(f"{stage} {action} @{2 + APART * index}" for index, stage in enumerate(stages))
    with served(tmp_path, models, *FLAGS, environment={"FAILPOINTS": orders}) as server:
        found: Counter[str] = Counter()
        for _ in range(APART * len(stages)):
            found += ask_all(server)
        assert set(found) <= {"ok", *TOLD}, found
        assert sum(found.values()) - found["ok"] <= len(stages), f"{len(stages)} faults: {found}"
        check_probes(server)
        eventually(lambda: ask_all(server) == {"ok": 4}, limit_s=LIMIT_S, what="everybody is answered")
        assert server.stop() == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_that_stays_ends_when_its_cause_does(tmp_path: Path, models: Path, stage: str) -> None:
    """Every request panics for a while: probes go on, and afterwards everybody is answered."""
    cause = tmp_path / "cause"
    cause.touch()
    order = f"{stage} {fault(stage, 'panic')} while {cause}"
    with served(tmp_path, models, *FLAGS, environment={"FAILPOINTS": order}) as server:
        found: Counter[str] = Counter()
        for _ in range(ROUNDS):
            found += ask_all(server)
            assert probe(server.metrics, "/livez", LIMIT_S) is not None
        assert set(found) <= {"ok", *TOLD}, found
        cause.unlink()
        eventually(lambda: ask_all(server) == {"ok": 4}, limit_s=LIMIT_S, what="everybody is answered again")
        check_probes(server)
        assert server.stop() == 0


@pytest.mark.parametrize("stage", ["decode", "flush", "inline", "next", "instance", "run", "deliver", "http_reply"])
def test_the_process_ends_though_a_stage_is_frozen(tmp_path: Path, models: Path, stage: str) -> None:
    """A stage that does not come back, wherever it is, is left behind when the drain is over."""
    cause = tmp_path / "cause"
    with served(tmp_path, models, *FLAGS, environment={"FAILPOINTS": f"{stage} block while {cause}"}) as server:
        assert ask_all(server) == {"ok": 4}
        cause.touch()
        connection = Http2Connection(server.grpc)
        with suppress(OSError):
            for inference in REQUESTS.values():
                stream = connection.open(grpc_headers())
                connection.send(stream, framed(inference.message()))
        # Whoever is frozen, the front is not.
        assert probe(server.metrics, "/livez", LIMIT_S) is not None
        assert server.stop() == 0
        connection.socket.close()


@pytest.mark.parametrize("stage", ["flush", "inline"])
def test_a_frozen_loop_shows_in_liveness_as_long_as_it_is(tmp_path: Path, models: Path, stage: str) -> None:
    cause = tmp_path / "cause"
    flags = (*FLAGS, "--event-loops", "1")
    with served(tmp_path, models, *flags, environment={"FAILPOINTS": f"{stage} block while {cause}"}) as server:
        for _ in range(TAUGHT):
            assert ask_all(server) == {"ok": 4}
        check_probes(server)
        cause.touch()
        message = REQUESTS["identity_FP32"].message()
        with ExitStack() as stack:
            # One of them is the next that runs on the loop.
            for _ in range(ROUNDS):
                connection = stack.enter_context(Http2Connection(server.grpc))
                connection.send(connection.open(grpc_headers()), framed(message))
            eventually(
                lambda: probe(server.metrics, "/livez", LIMIT_S) not in {None, 200},
                limit_s=LIMIT_S,
                what="a loop that stands still is told",
            )
            cause.unlink()
        check_probes(server)
        assert ask_all(server) == {"ok": 4}


@pytest.mark.parametrize("stage", ["load", "warm_up", "drain"])
@pytest.mark.parametrize("action", ["panic", "error"])
def test_a_fault_of_loading_or_leaving_is_that_models_alone(
    tmp_path: Path, models: Path, stage: str, action: str
) -> None:
    cause = tmp_path / "cause"
    flags = (*FLAGS, "--model-control-mode", "explicit", "--load-models", "*")
    order = f"{stage} {action} while {cause}"
    with served(tmp_path, models, *flags, environment={"FAILPOINTS": order}) as server:
        repositories.unload(server, "add_FP32")
        cause.touch()
        loaded = repositories.load(server, "add_FP32").status
        repositories.unload(server, "add_FP32")
        assert stage != "load" or loaded != 200
        body, fields = REQUESTS["identity_FP32"].body()
        named = {name.replace("-", "_"): value for name, value in fields.items()}
        for _ in range(ROUNDS):
            assert http_outcome(server.http, "POST", REQUESTS["identity_FP32"].target, body, **named) == "ok"
        cause.unlink()
        assert repositories.load(server, "add_FP32").status == 200
        assert ask_all(server) == {"ok": 4}
        check_probes(server)
        assert server.stop() == 0
