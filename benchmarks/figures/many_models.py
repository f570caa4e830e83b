"""A thousand small models in one process: time until they serve, memory of each, and what they cost one another.

CPU time per request, all traffic to one of them and spread evenly over all, beside a server that has that one alone.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from figures import consumption, load
from figures.cpu import SHAPES, TINY
from figures.load import Cost, Loaded
from figures.report import Report
from figures.servers import Server, launch_mlserve, running, wait_for_answer
from figures.setup import Setup
from figures.spread import Spread, Target, ratio_of
from figures.subject import INFER, Subject

MODELS = 1_000
ROUNDS = 7
SHAPE = SHAPES[0]
SETTLE_S = 3.0
READY_LIMIT_S = 300.0
# The bound on CPU time per request with all traffic to one of many.
BOUND = 1.2


@dataclass
class Case:
    """One kind of traffic to one server."""

    name: str
    server: Server
    body: Path
    urls: Path | None
    costs: list[Cost] = field(default_factory=list)
    requests: int = 0


def measure(setup: Setup) -> Report:
    """Starts both servers, and loads them in turns."""
    report = Report("many_models", f"{MODELS:,} small models in one process", ["", "found", "bound"])
    many, one = setup.folder / "many", setup.folder / "one"
    for number in range(MODELS):
        _put(many, _name(number))
    _put(one, _name(0))
    subject = replace(TINY, name=_name(0))
    with ExitStack() as stack:
        alone, _ = _started(stack, setup, one, subject)
        crowd, ready_s = _started(stack, setup, many, subject)
        time.sleep(SETTLE_S)
        resident = {
            name: consumption.resident_bytes(server.process.pid) / 1e6
            for name, server in (("one", alone), ("all", crowd))
        }
        cases = _cases(setup, alone, crowd, subject)
        # Spread traffic last: it leaves threads and warm memory of a thousand models behind.
        _interleave(setup, cases[:4])
        _interleave(setup, cases[4:])
    _describe(report, setup, cases, ready_s, resident)
    return report


def _interleave(setup: Setup, cases: list[Case]) -> None:
    for case in cases:
        case.requests = load.enough(lambda count, case=case: _run(case, count, setup), SHAPE, setup)
    for number in range(setup.rounds_or(ROUNDS)):
        for case in cases[:: -1 if number % 2 else 1]:
            case.costs.append(load.measured(case.server, lambda case=case: _run(case, case.requests, setup)))


def _name(number: int) -> str:
    return f"m{number:04}"


def _put(folder: Path, name: str) -> None:
    file = folder / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    shutil.copy(TINY.path, file)


def _started(stack: ExitStack, setup: Setup, folder: Path, subject: Subject) -> tuple[Server, float]:
    """A server that is ready, and the seconds from its command until all models were."""
    ready = folder / "ready.json"
    begun = time.perf_counter()
    flags = [f"--ready-file={ready}"]
    server = stack.enter_context(running(launch_mlserve(setup, folder, subject, core=setup.server_core, flags=flags)))
    while not ready.is_file() and server.process.poll() is None and time.perf_counter() - begun < READY_LIMIT_S:
        time.sleep(0.01)
    taken = time.perf_counter() - begun
    wait_for_answer(setup, server, subject)
    return server, taken


def _cases(setup: Setup, alone: Server, crowd: Server, subject: Subject) -> list[Case]:
    frame, json = setup.folder / "many.frame", setup.folder / "many.json"
    frame.write_bytes(subject.grpc_frame())
    json.write_bytes(subject.json_body())
    paths = {"one": [subject.http_path()], "all": [f"/v2/models/{_name(number)}/infer" for number in range(MODELS)]}
    urls = {}
    for name, server, which in (("alone", alone, "one"), ("one", crowd, "one"), ("all", crowd, "all")):
        urls[name] = setup.folder / f"urls-{name}"
        urls[name].write_text("".join(f"http://{server.http}{path}\n" for path in paths[which]), encoding="ascii")
    return [
        Case("gRPC, the model served alone", alone, frame, None),
        Case("gRPC, all traffic to one of many", crowd, frame, None),
        Case("HTTP JSON, the model served alone", alone, json, urls["alone"]),
        Case("HTTP JSON, all traffic to one of many", crowd, json, urls["one"]),
        Case("HTTP JSON, the model served alone (later rounds)", alone, json, urls["alone"]),
        Case("HTTP JSON, spread evenly over all", crowd, json, urls["all"]),
    ]


def _run(case: Case, count: int, setup: Setup) -> Loaded:
    if case.urls is None:
        return load.grpc(case.server, INFER, case.body, SHAPE, count, setup)
    # HTTP/2, whose paths h2load can take from a file.
    options = ["-H", "content-type: application/json", "-i"]
    return load.h2load(str(case.urls), case.body, SHAPE, count, setup, *options)


def _describe(report: Report, setup: Setup, cases: list[Case], ready_s: float, resident: dict[str, float]) -> None:
    each_kb = (resident["all"] - resident["one"]) * 1e3 / (MODELS - 1)
    report.rows += [
        ["seconds from the command until all are ready, one core", f"{ready_s:.1f}", ""],
        ["resident MB, one model", f"{resident['one']:.1f}", ""],
        [f"resident MB, {MODELS:,} models", f"{resident['all']:.1f}", ""],
        ["resident kB for each more model", f"{each_kb:.0f}", ""],
    ]
    cpu = {case.name: [cost.cpu_us for cost in case.costs] for case in cases}
    report.rows += [[f"µs CPU/request, {name}", Spread.of(values).text(), ""] for name, values in cpu.items()]
    names = [case.name for case in cases]
    for what, ours, base in (
        ("gRPC, one of many over alone", names[1], names[0]),
        ("HTTP, one of many over alone", names[3], names[2]),
        ("HTTP, spread over alone", names[5], names[4]),
    ):
        ratio = ratio_of(cpu[ours], cpu[base])
        if ratio is None:
            continue
        is_bound = "spread" not in what
        report.rows.append([f"ratio: {what}", ratio.text(2), str(BOUND) if is_bound else ""])
        if is_bound:
            report.targets.append(Target(f"CPU per request, {what}", ratio.median, BOUND, "x"))
    report.measurements.append({"ready_s": ready_s, "resident_mb": resident, "cpu_us": cpu})
    report.notes.append(
        f"medians of {setup.rounds_or(ROUNDS)} interleaved rounds (least-most) at {SHAPE.name()}; spread: h2load takes the "
        "models in turn, so that a turn of the loop has fewer requests for each to batch"
    )
