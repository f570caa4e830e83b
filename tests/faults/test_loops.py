"""What goes wrong outside of requests: in a loop's own tasks, on the threads beside it, and at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs
from tests.conftest import STOP_LIMIT_S, ServerProcess, eventually, serving
from tests.oracle import metric
from tests.raw_http import HttpAnswer, connected, exchange, head, read_answer
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

LIMIT_S = 20.0
# By what a panic there ends.
PLACES = {
    "turn": "turn",
    "mailbox": "turn",
    "connection": "connection",
    "accept": "front",
    "probe": "health",
    "scrape": "health",
}
ONE_LOOP = ("--set", "server.event_loops=1", "--drain-notice-ms", "0", "--drain-timeout-ms", "300")
POOLED = ("--set", "models.pooled.inline=false", "--set", "models.pooled.instances=1")
# A server in this process whose run, and then its loop, does not come back.
IN_PROCESS = """
import sys, threading
from pathlib import Path
import numpy as np
from mlserve import Server

row = {"x": np.ones((1, 2), np.float32)}
server = Server(sys.argv[1])
server.start()
server.infer("inline", row)
Path(sys.argv[2]).touch()
threading.Thread(target=lambda: server.infer("inline", row), daemon=True).start()
while "Block" not in Path(sys.argv[3]).read_text():
    pass
server.stop()
print("stopped", flush=True)
"""

# A server in this process that is stopped while a request of this process runs.
DRAINED = """
import sys, threading
from pathlib import Path
import numpy as np
from mlserve import Server

row = {"x": np.ones((1, 2), np.float32)}
server = Server(sys.argv[1])
server.start()
Path(sys.argv[2]).touch()
asking = threading.Thread(target=lambda: print(server.infer("inline", row)["y"].shape, flush=True))
asking.start()
while "Sleep" not in Path(sys.argv[3]).read_text():
    pass
server.stop()
asking.join()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model twice: one runs on its loop, the other on an instance."""
    folder = tmp_path_factory.mktemp("models")
    for name in ["inline", "pooled"]:
        graphs.write(folder, name, graphs.identity("FP32"))
    return folder


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder; a file there named like a stage makes that stage fail."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path, faults: Path) -> Iterator[ServerProcess]:
    """A server of one loop, each stage of which can be made to fail."""
    stages = [*PLACES, "recover"]
    orders = [f"{stage} panic while {faults / stage}" for stage in stages] + [
        f"deliver block while {faults / 'freeze'}"
    ]
    with serving(tmp_path_factory.mktemp("loops")) as start:
        yield start(folder, *ONE_LOOP, *POOLED, env={"FAILPOINTS": "; ".join(orders)})


def infer(server: ServerProcess, model: str) -> HttpAnswer | None:
    """One row on a connection of its own; `None` if that was closed without an answer."""
    inference = Inference(model, [Tensor.of("x", np.ones((1, 2), np.float32), "FP32")])
    body, fields = inference.body()
    sized = {**fields, "content-length": str(len(body)), "connection": "close"}
    return exchange(server.http, head("POST", inference.target, sized) + body)


def probe(server: ServerProcess, target: str) -> int | None:
    """The status of a probe; `None` without an answer."""
    answer = exchange(server.metrics, head("GET", target, {"connection": "close"}), "GET")
    return None if answer is None else answer.status


def wait_for(server: ServerProcess, target: str, status: int) -> None:
    eventually(lambda: probe(server, target) == status, limit_s=LIMIT_S, what=f"{target} says {status}")


def assert_all_is_well(server: ServerProcess) -> None:
    for target in ("/livez", "/readyz"):
        wait_for(server, target, 200)
    for model in ("inline", "pooled"):
        answer = infer(server, model)
        assert answer is not None
        assert answer.status == 200


@pytest.mark.parametrize("stage", PLACES)
def test_a_panic_ends_what_it_touches_and_is_counted(server: ServerProcess, faults: Path, stage: str) -> None:
    assert_all_is_well(server)

    def panics() -> float:
        return metric(server, "mlserve_panics_total", place=PLACES[stage])

    before = panics()
    with connected(server.http) as kept:
        kept.sendall(head("GET", "/v2/health/live"))
        assert read_answer(kept, "GET") is not None
        (faults / stage).touch()
        try:
            if stage == "probe":
                assert probe(server, "/livez") is None
            elif stage == "scrape":
                assert probe(server, "/metrics") == 500
                assert probe(server, "/livez") == 200
            elif stage == "mailbox":
                # What an instance has finished is not lost: it is fetched when that can be done again.
                with ThreadPoolExecutor(1) as threads:
                    asked = threads.submit(infer, server, "pooled")
                    eventually(lambda: panics() > before, limit_s=LIMIT_S, what="a panic")
                    (faults / stage).unlink()
                    answer = asked.result()
                assert answer is not None
                assert answer.status == 200
            else:
                answer = infer(server, "pooled")
                assert answer is None or answer.status in {500, 503}, answer
        finally:
            (faults / stage).unlink(missing_ok=True)
        assert panics() > before
        assert_all_is_well(server)
        kept.sendall(head("GET", "/v2/health/live"))
        assert read_answer(kept, "GET") is not None, "connections go on"
    assert metric(server, "mlserve_inflight_requests") == 0


def test_a_loop_that_cannot_be_mended_begins_anew(server: ServerProcess, faults: Path) -> None:
    before = metric(server, "mlserve_panics_total", place="loop")
    (faults / "recover").touch()
    (faults / "turn").touch()
    try:
        answer = infer(server, "inline")
        assert answer is None or answer.status in {500, 503}, answer
    finally:
        (faults / "turn").unlink()
        (faults / "recover").unlink()
    eventually(
        lambda: metric(server, "mlserve_panics_total", place="loop") > before, limit_s=LIMIT_S, what="it is counted"
    )
    assert_all_is_well(server)


def test_a_frozen_loop_shows_in_liveness_and_readiness(server: ServerProcess, faults: Path) -> None:
    assert_all_is_well(server)
    (faults / "freeze").touch()
    try:
        with connected(server.http) as opened:
            inference = Inference("inline", [Tensor.of("x", np.ones((1, 2), np.float32), "FP32")])
            body, fields = inference.body()
            opened.sendall(head("POST", inference.target, {**fields, "content-length": str(len(body))}) + body)
            for target in ("/livez", "/readyz"):
                wait_for(server, target, 400)
            (faults / "freeze").unlink()
            answer = read_answer(opened)
            assert answer is not None
            assert answer.status == 200
    finally:
        (faults / "freeze").unlink(missing_ok=True)
    assert_all_is_well(server)


@pytest.mark.parametrize(("stage", "model"), [("deliver", "inline"), ("run", "pooled"), ("gather", "pooled")])
def test_the_process_ends_whatever_is_stuck(
    start_server: StartServer, folder: Path, tmp_path: Path, stage: str, model: str
) -> None:
    stuck = tmp_path / "stuck"
    stuck.touch()
    order = {"FAILPOINTS": f"{stage} block while {stuck}"}
    # A stage that every request meets, but not the warm-up.
    server = start_server(folder, *ONE_LOOP, *POOLED, env=order)

    def ask_in_vain() -> None:
        with suppress(OSError):
            infer(server, model)

    asking = threading.Thread(target=ask_in_vain)
    asking.start()
    eventually(lambda: "Block" in server.log.read_text(), limit_s=LIMIT_S, what="it is stuck")
    server.process.terminate()
    assert server.process.wait(STOP_LIMIT_S) == 0
    asking.join(LIMIT_S)


def test_the_process_ends_while_a_model_is_being_loaded(
    start_server: StartServer, folder: Path, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    order = {"FAILPOINTS": f"load block while {stuck}"}
    server = start_server(folder, *ONE_LOOP, "--model-control-mode", "explicit", env=order)
    stuck.touch()
    with connected(server.http) as opened:
        target = "/v2/repository/models/inline/load"
        opened.sendall(head("POST", target, {"content-length": "0"}))
        eventually(lambda: "Block" in server.log.read_text(), limit_s=LIMIT_S, what="it is stuck")
        server.process.terminate()
        assert server.process.wait(STOP_LIMIT_S) == 0


@pytest.mark.parametrize(
    ("script", "order", "printed"),
    [(IN_PROCESS, "deliver block", b"stopped\n"), (DRAINED, "run sleep 1000", b"(1, 2)\n")],
    ids=["stuck", "slow"],
)
def test_a_server_in_ones_own_process_stops_when_all_is_answered_or_stuck(
    folder: Path, tmp_path: Path, script: str, order: str, printed: bytes
) -> None:
    cause, log = tmp_path / "cause", tmp_path / "log"
    environment = {**os.environ, "FAILPOINTS": f"{order} while {cause}"}
    with log.open("wb") as errors:
        ended = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(cause), str(log)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            timeout=60,
        )
    assert ended.stdout == printed
