"""Calls from the server's own process: the same bounds as for those that come over a socket."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import graphs
from tests.attacks.harness.aim import Aim, Tally
from tests.attacks.harness.field import Field
from tests.conftest import POLL_S, START_LIMIT_S, ServerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.attacks.harness.field import Scale

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

BODY_BYTES = 4 << 20
BUDGET_BYTES = 32 << 20
CALLERS = 16
# Serves, and carries out the order in the file `order` each time that it appears; what came of it is in `outcomes`.
SCRIPT = """
import json, sys, threading, time
from collections import Counter
from pathlib import Path
import numpy as np
from mlserve import Server
from mlserve.errors import MlserveError

folder = Path(sys.argv[1])
limits = {"byte_budget": int(sys.argv[2]), "max_body_bytes": int(sys.argv[3])}
order, outcomes = folder / "order", folder / "outcomes"

def asked(array):
    try:
        server.infer("identity_FP32", {"x": array})
    except MlserveError as error:
        return error.code
    return "ok"

def shapes():
    empty = np.empty(0, np.float32)
    # The largest that numpy itself can say.
    shaped = [(2**31, 0), (2**40, 0), (2**58, 0), (0, 2**58)]
    return Counter(asked(np.lib.stride_tricks.as_strided(empty, shape, (0, 0))) for shape in shaped)

def large():
    return Counter([asked(np.zeros((1, limits["max_body_bytes"] // 4 + 1), np.float32))])

def many():
    found, array = Counter(), np.zeros((1, limits["max_body_bytes"] // 8), np.float32)
    def ask():
        for _ in range(5):
            found[asked(array)] += 1
    callers = [threading.Thread(target=ask) for _ in range(int(sys.argv[4]))]
    for caller in callers: caller.start()
    for caller in callers: caller.join()
    return found

with Server(folder / "models", limits=limits, log={"log_level": "warn"}) as server:
    addresses = {"http": server.http_url, "grpc": server.grpc_url, "metrics": server.metrics_url}
    print(json.dumps(addresses), flush=True)
    while True:
        if order.exists():
            wanted = order.read_text()
            order.unlink()
            (folder / "partial").write_text(json.dumps({"shapes": shapes, "large": large, "many": many}[wanted]()))
            (folder / "partial").rename(outcomes)
        time.sleep(0.01)
"""


@contextmanager
def process(folder: Path) -> Iterator[ServerProcess]:
    graphs.write_all(folder / "models", ("identity_FP32",))
    log = folder / "log.txt"
    command = [sys.executable, "-c", SCRIPT, str(folder), str(BUDGET_BYTES), str(BODY_BYTES), str(CALLERS)]
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            assert line, log.read_text()
            found: dict[str, str] = json.loads(line)
            bare = {name: url.removeprefix("http://").removesuffix("/metrics") for name, url in found.items()}
            yield ServerProcess(started, bare["http"], bare["grpc"], bare["metrics"], log)
        finally:
            started.kill()


def carried_out(aim: Aim, order: str) -> Tally:
    partial, outcomes = aim.folder / f"order-{order}", aim.folder / "outcomes"
    partial.write_text(order)
    partial.rename(aim.folder / "order")
    while not outcomes.exists():
        time.sleep(POLL_S)
    found: dict[str, Any] = json.loads(outcomes.read_text())
    outcomes.unlink()
    return Tally(sum(found.values()), 0, 0, 0, Counter(found))


def shapes(aim: Aim) -> Tally:
    return carried_out(aim, "shapes")


def large(aim: Aim) -> Tally:
    return carried_out(aim, "large")


def many(aim: Aim) -> Tally:
    tally = carried_out(aim, "many")
    # The arrays themselves are the caller's; the server may copy what the budget allows, there and back.
    tally.declared_bytes = BODY_BYTES + 2 * BUDGET_BYTES + CALLERS * BODY_BYTES
    return tally


@pytest.mark.parametrize(
    ("attack", "allowed"),
    [
        (shapes, {"invalid_argument", "too_large", "ok", "out_of_budget"}),
        (large, {"too_large"}),
        (many, {"ok", "out_of_budget"}),
    ],
    ids=["shapes", "large", "many"],
)
def test_calls_of_the_own_process_are_bounded_too(tmp_path: Path, scale: Scale, attack: Any, allowed: set[str]) -> None:
    with process(tmp_path) as server:
        eventually(lambda: server.process.poll() is None, limit_s=START_LIMIT_S, what="the server")
        # What the caller's own threads keep is there after the first time, and none of the server's.
        attack(Aim(server.http, server.grpc, server.metrics, server.process.pid, tmp_path, 1))
        field = Field(server, tmp_path, scale, lambda _: None)
        field.attack(f"in-process {attack.__name__}", attack, allowed=allowed, cpu_slack_s=20)
