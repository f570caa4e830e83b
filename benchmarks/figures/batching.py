"""A heavy model, where batching decides: throughput and CPU time for each row beside Triton's, one core for each server.

resmlp takes about 1 ms for one row and a sixth of that in a large batch. Triton has its dynamic batcher, up to 32 rows.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from figures import load
from figures.load import Cost, Shape
from figures.report import Report
from figures.servers import launch_mlserve, launch_triton, running, wait_and_check
from figures.setup import ROOT, BenchmarkError, Setup
from figures.spread import NOT_MEASURED, Spread, ratio_of, shown
from figures.subject import INFER, Subject

ROUNDS = 5
SHAPES = [Shape(4, 16), Shape(4, 4), Shape(1, 1)]


def measure(setup: Setup) -> Report:
    """All loads, both servers, rounds outermost."""
    subject = _resmlp(setup)
    body = setup.folder / "resmlp.frame"
    body.write_bytes(subject.grpc_frame())
    costs: dict[tuple[Shape, str], list[Cost]] = {}
    with ExitStack() as stack:
        servers = [launch_mlserve(setup, subject.path.parents[2], subject, core=setup.server_core)]
        if setup.triton_run is not None:
            servers.append(launch_triton(setup, subject, core=setup.server_core))
        for server in servers:
            stack.enter_context(running(server))
        for server in servers:
            wait_and_check(setup, server, subject)
        for _ in range(setup.rounds_or(ROUNDS)):
            for shape in SHAPES:
                for server in servers:
                    count = max(200, 60 * shape.connections * shape.streams)
                    cost = load.measured(server, partial(load.grpc, server, INFER, body, shape, count, setup))
                    costs.setdefault((shape, server.name), []).append(cost)
    return _report(setup, costs)


def _resmlp(setup: Setup) -> Subject:
    """Too large to be committed, so it is made for the run."""
    folder = setup.folder / "made"
    made = [sys.executable, str(ROOT / "benchmarks" / "make_models.py"), str(folder)]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"make_models.py: {done.stderr[-400:]}")
    return Subject("resmlp", folder / "resmlp" / "1" / "model.onnx", 512, 1000)


def _report(setup: Setup, costs: dict[tuple[Shape, str], list[Cost]]) -> Report:
    head = ["load", "mlserve req/s", "Triton req/s", "mlserve µs CPU/row", "Triton µs CPU/row", "CPU ratio"]
    report = Report("batching", "A heavy model (512→2048→2048→1000), gRPC, one core", head)
    for shape in SHAPES:
        found = {name: costs.get((shape, name), []) for name in ("mlserve", "Triton")}
        rates = [shown(Spread.of([cost.requests_per_s for cost in row]) if row else None, 0) for row in found.values()]
        spent = {name: [cost.cpu_us for cost in row] for name, row in found.items()}
        cpu = [Spread.of(row).text(0) if row else NOT_MEASURED for row in spent.values()]
        report.rows.append([shape.name(), *rates, *cpu, shown(ratio_of(spent["mlserve"], spent["Triton"]), 2)])
        rounds = {name: [asdict(cost) for cost in row] for name, row in found.items()}
        report.measurements.append({"load": shape.name(), "rounds": rounds})
    report.notes.append(
        f"medians of {setup.rounds_or(ROUNDS)} interleaved rounds (least-most); every request is one row"
    )
    return report
