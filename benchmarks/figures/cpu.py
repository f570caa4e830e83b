"""CPU time of the server for each request of a tiny model, beside Triton's, and the floors under it.

Server on one core, client on the other. Rounds are outermost, so that servers meet the same machine. Closed loop:
what is reported is cost and peak throughput, not latency (`latency.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession

from figures import load, wire
from figures.load import Cost, Loaded, Shape
from figures.report import Report
from figures.servers import Server, launch_before, launch_mlserve, launch_triton, running, wait_and_check
from figures.setup import MODELS, Setup
from figures.spread import NOT_MEASURED, Spread, Target, percentile, ratio_of, shown
from figures.subject import INFER, SERVER_LIVE, Subject

TINY = Subject("tiny", MODELS / "tiny" / "1" / "model.onnx", 8, 3)
SHAPES = [Shape(8, 64), Shape(4, 16), Shape(1, 1)]
HTTP_CONNECTIONS = [64, 16]
ROUNDS = 5
# The bound, at 8 connections x 64 streams.
BOUND_US = 8.0
IN_PROCESS_RUNS = 20_000


@dataclass
class Case:
    """One kind of load, and what it has cost each server so far."""

    transport: str
    shape: str
    run: Callable[[Server, int], Loaded]
    counted: bool = True
    requests: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def cpu_us(self, server: str) -> list[float]:
        """CPU time for each request, round by round."""
        return [cost.cpu_us for cost in self.costs.get(server, [])]

    def rates(self, server: str) -> list[float]:
        """Requests per second, round by round."""
        return [cost.requests_per_s for cost in self.costs.get(server, [])]


def measure(setup: Setup) -> Report:
    """All loads, all servers, all rounds."""
    cases = list(_cases(setup))
    with ExitStack() as stack:
        servers = [stack.enter_context(running(launch_mlserve(setup, MODELS, TINY, core=setup.server_core)))]
        before = launch_before(setup, MODELS, TINY, core=setup.server_core)
        servers += [stack.enter_context(running(server)) for server in before]
        if setup.triton_run is not None:
            servers.append(stack.enter_context(running(launch_triton(setup, TINY, core=setup.server_core))))
        for server in servers:
            wait_and_check(setup, server, TINY)
        for case in cases:
            for server in servers:
                _calibrate(case, server, setup)
        for number in range(setup.rounds_or(ROUNDS)):
            for case in cases:
                for server in servers[:: -1 if number % 2 else 1]:
                    run = partial(case.run, server, case.requests[server.name])
                    cost = load.measured(server, run, counted=case.counted)
                    case.costs.setdefault(server.name, []).append(cost)
    return _report(setup, cases, _in_process(setup))


def _cases(setup: Setup) -> Iterator[Case]:
    frame = setup.folder / "tiny.frame"
    frame.write_bytes(TINY.grpc_frame())
    empty = setup.folder / "empty.frame"
    empty.write_bytes(wire.grpc_message(b""))
    for shape in SHAPES:
        yield Case(
            "gRPC",
            shape.name(),
            partial(_grpc, setup=setup, rpc=INFER, body=frame, shape=shape),
        )
    shape = SHAPES[0]
    yield Case(
        "gRPC ServerLive (no model)",
        shape.name(),
        partial(_grpc, setup=setup, rpc=SERVER_LIVE, body=empty, shape=shape),
        counted=False,
    )
    binary, headers = TINY.binary_body()
    scripts = {
        "HTTP JSON": load.wrk_script(setup.folder, "json", TINY.json_body(), {"content-type": "application/json"}),
        "HTTP binary": load.wrk_script(setup.folder, "binary", binary, headers),
    }
    for transport, script in scripts.items():
        for connections in HTTP_CONNECTIONS:
            run = partial(_http, setup=setup, script=script, connections=connections)
            yield Case(transport, f"{connections}x1", run)


def _grpc(server: Server, count: int, *, setup: Setup, rpc: str, body: Path, shape: Shape) -> Loaded:
    return load.grpc(server, rpc, body, shape, count, setup)


def _http(server: Server, _: int, *, setup: Setup, script: Path, connections: int) -> Loaded:
    return load.wrk(f"http://{server.http}{TINY.http_path()}", script, connections, setup)


def _calibrate(case: Case, server: Server, setup: Setup) -> None:
    """Warms up, and finds how many requests fill a window; wrk counts seconds and needs none."""
    if case.transport.startswith("HTTP"):
        case.requests[server.name] = 0
        return
    connections, streams = (int(part) for part in case.shape.split("x"))
    case.requests[server.name] = load.enough(partial(case.run, server), Shape(connections, streams), setup)


def _in_process(setup: Setup) -> dict[int, Spread]:
    """Microseconds of one `session.run` from Python on the server's core, by batch size: p50 of each round."""
    session, row = TINY.session(), TINY.row()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {setup.server_core})
    try:
        return {rows: Spread.of([_p50_us(session, np.repeat(row, rows, 0)) for _ in range(ROUNDS)]) for rows in (1, 64)}
    finally:
        os.sched_setaffinity(0, allowed)


def _p50_us(session: InferenceSession, batch: npt.NDArray[np.float32]) -> float:
    taken = []
    for _ in range(IN_PROCESS_RUNS // ROUNDS):
        begun = time.perf_counter_ns()
        session.run(None, {"input": batch})
        taken.append(time.perf_counter_ns() - begun)
    return percentile(sorted(taken), 0.5) / 1e3


def _report(setup: Setup, cases: list[Case], in_process: dict[int, Spread]) -> Report:
    head = [
        "transport",
        "load",
        "mlserve µs CPU/request",
        "Triton µs CPU/request",
        "ratio",
        "mlserve req/s",
        "Triton req/s",
    ]
    report = Report("cpu", "CPU time of the server per request, tiny model 8→16→3, one core", head)
    for case in cases:
        ours, theirs = case.cpu_us("mlserve"), case.cpu_us("Triton")
        cells = [Spread.of(ours).text(), Spread.of(theirs).text() if theirs else NOT_MEASURED]
        rates = [shown(Spread.of(case.rates(name)) if case.rates(name) else None, 0) for name in ("mlserve", "Triton")]
        report.rows.append([case.transport, case.shape, *cells, shown(ratio_of(ours, theirs), 3), *rates])
        if before := case.cpu_us("before"):
            rate = shown(Spread.of(case.rates("before")), 0)
            over = f"{shown(ratio_of(ours, before), 3)} over it"
            report.rows.append(["", "earlier build", Spread.of(before).text(), "", over, rate, ""])
        rounds = {name: [asdict(cost) for cost in costs] for name, costs in case.costs.items()}
        report.measurements.append({"transport": case.transport, "load": case.shape, "rounds": rounds})
    for rows, spread in in_process.items():
        cells = ["ONNX Runtime alone, from Python", f"batch {rows}", f"{spread.text()} a run"]
        report.rows.append([*cells, *[""] * (len(head) - len(cells))])
        report.measurements.append({"in_process_rows": rows, "us_per_run": spread.to_json()})
    report.targets.append(
        Target("gRPC at 8x64, CPU of the server", Spread.of(cases[0].cpu_us("mlserve")).median, BOUND_US, "µs/request")
    )
    report.notes += [
        f"medians of {setup.rounds_or(ROUNDS)} rounds (least-most); servers interleave inside a round",
        "load: connections x requests at once on each; every request was counted as right by the server itself",
        f"other work on the machine: {_other(cases)} of {os.cpu_count()} cores",
    ]
    return report


def _other(cases: list[Case]) -> str:
    return Spread.of([cost.other_cores for case in cases for costs in case.costs.values() for cost in costs]).text(2)
