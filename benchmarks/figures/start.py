"""Time from the command to the first right answer over gRPC, on free cores and with warm file caches."""

from __future__ import annotations

import time
from collections.abc import Callable

from figures.cpu import TINY
from figures.report import Report
from figures.servers import Server, launch_mlserve, launch_triton, running, wait_for_answer
from figures.setup import MODELS, Setup
from figures.spread import NOT_MEASURED, Spread, Target
from figures.subject import check_answers

ROUNDS = 11
# The bound, for what a user types.
BOUND_S = 0.4
ONLY_TINY = MODELS / "tiny" / "1" / "model.onnx"


def commands(setup: Setup) -> dict[str, Callable[[], Server] | None]:
    """What is started, by its name; `None`: not there."""

    def plain() -> Server:
        return launch_mlserve(setup, MODELS, TINY, core=None)

    def console() -> Server:
        return launch_mlserve(setup, MODELS, TINY, core=None, console=True)

    def triton() -> Server:
        return launch_triton(setup, TINY, core=None)

    return {
        "mlserve, plain binary": plain,
        "mlserve, Python command": console if setup.console else None,
        "Triton": triton if setup.triton_run else None,
    }


def measure(setup: Setup) -> Report:
    """Rounds outermost; the first round only fills the file caches."""
    report = Report("start", "From the command to the first right gRPC answer", ["", "seconds"])
    launchers = commands(setup)
    taken: dict[str, list[float]] = {name: [] for name in launchers}
    rounds = setup.rounds_or(ROUNDS)
    for number in range(rounds + 1):
        for name, launch in launchers.items():
            if launch is not None:
                seconds = _once(setup, launch)
                taken[name] += [seconds] if number else []
    for name, values in taken.items():
        spread = Spread.of(values) if values else None
        report.rows.append([name, spread.text(3) if spread else NOT_MEASURED])
        report.measurements.append({"of": name, "seconds": values})
        if spread and name.startswith("mlserve"):
            report.targets.append(Target(f"first answer, {name}", spread.median, BOUND_S, "s"))
    report.notes.append(f"medians of {rounds} starts (least-most); mlserve serves two models, Triton the tiny one")
    return report


def _once(setup: Setup, launch: Callable[[], Server]) -> float:
    begun = time.perf_counter()
    with running(launch()) as server:
        seconds = wait_for_answer(setup, server, TINY) - begun
        check_answers(TINY, server.grpc, None)
    return seconds
