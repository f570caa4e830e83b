"""Measures the server and prints its figures: `python benchmarks/run.py [SCENARIO ...]`; `make bench` builds it first.

Each scenario checks answers before it measures, prints a table and writes `benchmarks/results/SCENARIO.json` with the
machine, the commit and the command. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import (
    batching,
    cpu,
    latency,
    machine,
    many_models,
    memory,
    onlookers,
    proof,
    reload,
    shared_memory,
    slow_reader,
    start,
)
from figures.report import Report
from figures.setup import ROOT, BenchmarkError, Setup, find_ort_library

SCENARIOS: dict[str, Callable[[Setup], Report]] = {
    "cpu": cpu.measure,
    "latency": latency.measure,
    "start": start.measure,
    "memory": memory.measure,
    "slow_reader": slow_reader.measure,
    "batching": batching.measure,
    "shared_memory": shared_memory.measure,
    "reload": reload.measure,
    "many_models": many_models.measure,
    "onlookers": onlookers.measure,
    "proof": proof.measure,
}


def main() -> int:
    options = _options()
    console = options.console or Path(sys.executable).with_name("mlserve")
    setup = Setup(
        server=options.server,
        before=options.before,
        console=console if console.is_file() else None,
        ort_library=find_ort_library(),
        triton_run=options.triton_run,
        triton_venv=options.triton_venv,
        proof_models=options.proof_models,
        rounds=options.rounds,
        window_s=options.window_s,
    )
    status = 0
    try:
        with _alone():
            for name in options.scenarios or SCENARIOS:
                status |= _run(name, setup, options.out)
    finally:
        shutil.rmtree(setup.folder, ignore_errors=True)
    return status


@contextmanager
def _alone() -> Iterator[None]:
    """Waits for other runs on this machine: they would measure each other."""
    with (Path(tempfile.gettempdir()) / "mlserve-benchmark.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another benchmark run on this machine", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(name: str, setup: Setup, out: Path) -> int:
    try:
        report = SCENARIOS[name](setup)
    except BenchmarkError as error:
        print(f"## {name}\n\n- FAILED: {error}\n", flush=True)
        return 1
    path = report.write(out, machine.described(setup))
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    print(f"{report.text()}- written to {shown}\n", flush=True)
    return 1 if report.failures else 0


def _scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(SCENARIOS)}")
    return name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures mlserve, and Triton beside it where it can be started.")
    parser.add_argument("scenarios", nargs="*", type=_scenario, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--server",
        type=Path,
        default=ROOT / "target" / "release" / "mlserve-server",
        help="the plain binary of mlserve",
    )
    parser.add_argument(
        "--before", type=Path, help="the plain binary of an earlier build, measured beside it by cpu and latency"
    )
    parser.add_argument("--console", type=Path, help="the Python command of mlserve; default: beside this Python")
    triton = os.environ.get("MLSERVE_TRITON_RUN")
    parser.add_argument(
        "--triton-run",
        type=Path,
        default=Path(triton) if triton else None,
        help="a program that starts Triton: PATH REPOSITORY GRPC_PORT HTTP_PORT VENV (or set MLSERVE_TRITON_RUN)",
    )
    parser.add_argument(
        "--triton-venv",
        type=Path,
        default=Path(os.environ.get("MLSERVE_TRITON_VENV", ROOT / "target" / "triton")),
        help="the Python environment that the program keeps Triton in (or set MLSERVE_TRITON_VENV)",
    )
    parser.add_argument(
        "--proof-models", type=Path, help="a folder of models that proof loads beside those that it makes"
    )
    parser.add_argument("--rounds", type=int, help="repetitions; default: as many as the scenario needs")
    parser.add_argument("--window-s", type=float, default=2.0, help="about how long one measurement takes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
