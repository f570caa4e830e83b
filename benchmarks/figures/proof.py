"""What the proof that rows are independent adds to the load of large models, beside the same load without it.

Models of usual sizes and shapes are made for the run; those below `--proof-models` are loaded too. Each is loaded with
batching off and on, alternating. What remains of a load without its proof is the one with batching off, less its trials.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from figures.report import Report
from figures.setup import ROOT, BenchmarkError, Setup, raised
from figures.spread import Spread, Target, ratio_of

ROUNDS = 7
# Smaller models load in no time, whatever is added.
LEAST_BYTES = 4 << 20
# The bound, for the largest that are batched: what is not batched is hardly tried.
LARGEST = 10
BOUND = 1.2


@dataclass(frozen=True)
class Load:
    """One load: what became of the model, and milliseconds of its steps."""

    word: str
    check: float
    session: float
    first: float
    analysis: float
    trials: float
    warmup: float

    @property
    def whole(self) -> float:
        """From the file to a model that is ready."""
        return self.without_proof + self.analysis + self.trials

    @property
    def without_proof(self) -> float:
        """All but the reading of the graph and the trials."""
        return self.check + self.session + self.first + self.warmup


def measure(setup: Setup) -> Report:
    """All models, rounds outermost."""
    binary = setup.server.with_name("examples") / "proof"
    if not binary.is_file():
        raise BenchmarkError(f"{binary} is missing: cargo build --release --package mlserve-ort --example proof")
    paths = sorted(_models(setup), key=lambda path: path.stat().st_size, reverse=True)
    rounds = setup.rounds_or(ROUNDS)
    environment = {**os.environ, "MLSERVE_ORT_LIB": str(setup.ort_library)}
    # A round of its own before them fills the caches of files.
    command = [*raised(), str(binary), str(rounds + 1), *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{binary}: {done.stderr[-400:]}")
    loads: dict[tuple[Path, str], list[Load]] = defaultdict(list)
    for line in done.stdout.splitlines():
        number, choice, word, *steps, path = line.split("\t")
        if int(number) > 0:
            loads[Path(path), choice].append(Load(word, *map(float, steps)))
    return _report(paths, loads, rounds)


def _models(setup: Setup) -> Iterator[Path]:
    folder = setup.folder / "large"
    made = [sys.executable, str(ROOT / "benchmarks" / "make_large_models.py"), str(folder)]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"make_large_models.py: {done.stderr[-400:]}")
    yield from folder.glob("*.onnx")
    if setup.proof_models is not None:
        found = setup.proof_models.rglob("*.onnx")
        yield from (path for path in found if path.stat().st_size >= LEAST_BYTES)


def _report(paths: list[Path], loads: dict[tuple[Path, str], list[Load]], rounds: int) -> Report:
    head = ["model", "MB", "batched", "load ms", "session ms", "analysis ms", "trials ms", "without proof ms", "ratio"]
    report = Report("proof", "Loads with the proof that rows are independent, and without it", head)
    batched = 0
    for path in paths:
        proved, plain = loads[path, "auto"], loads[path, "off"]
        ratio = ratio_of([load.whole for load in proved], [load.without_proof for load in plain])
        if ratio is None:
            raise BenchmarkError(f"{path.name} was not loaded")
        is_batched = proved[0].word == "rows"
        spent = [
            Spread.of([getattr(load, step) for load in proved]).text(digits)
            for step, digits in [("whole", 0), ("session", 0), ("analysis", 1), ("trials", 0)]
        ]
        without = Spread.of([load.without_proof for load in plain]).text(0)
        size = f"{path.stat().st_size / 1e6:,.0f}"
        report.rows.append([path.stem, size, "yes" if is_batched else "no", *spent, without, ratio.text(2)])
        rows = {"auto": [vars(load) for load in proved], "off": [vars(load) for load in plain]}
        report.measurements.append({"model": path.stem, "bytes": path.stat().st_size, "loads": rows})
        batched += is_batched
        if is_batched and batched <= LARGEST:
            report.targets.append(Target(f"load of {path.stem} over that without proof", ratio.median, BOUND, ""))
    report.notes.append(f"medians of {rounds} loads (least-most), one thread; ratios are taken round by round")
    return report
