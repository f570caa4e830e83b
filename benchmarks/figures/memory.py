"""Memory that a server holds: idle after its first answer, and idle again after load."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import consumption, load
from figures.consumption import Memory
from figures.cpu import SHAPES, TINY
from figures.report import Report
from figures.servers import Server, running, wait_for_answer
from figures.setup import Setup
from figures.spread import NOT_MEASURED, Spread, Target
from figures.start import commands
from figures.subject import INFER

ROUNDS = 3
IDLE_S = 2.0
LOAD_REQUESTS = 50_000
# The bound.
BOUND_MB = 80.0


@dataclass(frozen=True)
class Held:
    """One round."""

    idle: Memory
    threads: int
    after_load: Memory


def measure(setup: Setup) -> Report:
    """Every server alone on the machine, one after the other."""
    head = ["", "idle RSS MB", "idle PSS MB", "threads", "RSS MB after load"]
    report = Report("memory", "Memory of an idle server", head)
    body = setup.folder / "memory.frame"
    body.write_bytes(TINY.grpc_frame())
    for name, launch in commands(setup).items():
        if launch is None:
            report.rows.append([name, *[NOT_MEASURED] * 4])
            continue
        rounds = []
        for _ in range(setup.rounds_or(ROUNDS)):
            with running(launch()) as server:
                rounds.append(_once(setup, server, body))
        _add(report, name, rounds)
    report.notes.append(
        f"{IDLE_S:.0f} s after the first right answer, and after {LOAD_REQUESTS:,} requests at 8x64; MB = 10^6 bytes"
    )
    return report


def _once(setup: Setup, server: Server, body: Path) -> Held:
    pid = server.process.pid
    wait_for_answer(setup, server, TINY)
    time.sleep(IDLE_S)
    idle, threads = consumption.memory(pid), consumption.threads(pid)
    load.measured(server, lambda: load.grpc(server, INFER, body, SHAPES[0], LOAD_REQUESTS, setup))
    time.sleep(IDLE_S)
    return Held(idle, threads, consumption.memory(pid))


def _add(report: Report, name: str, rounds: list[Held]) -> None:
    idle = Spread.of([held.idle.resident_mb for held in rounds])
    proportional = Spread.of([held.idle.proportional_mb for held in rounds])
    threads = Spread.of([held.threads for held in rounds])
    loaded = Spread.of([held.after_load.resident_mb for held in rounds])
    report.rows.append([name, idle.text(), proportional.text(), threads.text(0), loaded.text()])
    report.measurements.append({"of": name, "rounds": [asdict(held) for held in rounds]})
    if name.startswith("mlserve"):
        report.targets.append(Target(f"idle RSS, {name}", idle.median, BOUND_MB, "MB"))
