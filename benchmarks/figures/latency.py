"""One request at a time over one connection: the round trip as the client sees it, beside Triton's and a bare ping-pong.

Twice: server and client on two cores, where waking the other core is most of it, and both on one core. h2load keeps
the time of each request. Triton is started with its batcher, as everywhere, and without, which is faster here.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from figures import load
from figures.cpu import TINY
from figures.load import Shape
from figures.report import Report
from figures.servers import Server, launch_before, launch_mlserve, launch_triton, running, wait_and_check
from figures.setup import MODELS, ROOT, BenchmarkError, Setup, pinned, tool
from figures.spread import NOT_MEASURED, Spread, Target, percentile, ratio_of
from figures.subject import INFER

ROUNDS = 7
REQUESTS = 4_000
# The first requests of a connection meet cold caches and a window that still grows.
SKIPPED = 200
ALONE = Shape(1, 1)
# The bound on our p50 over Triton's.
BOUND = 0.6
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
# What h2load sends around the body of a call after the first: two frame heads, and a header block.
REQUEST_HEAD_BYTES = 9 + 44 + 9


@dataclass(frozen=True)
class Source:
    """Something whose round trip is measured, over one transport."""

    name: str
    transport: str
    server: Server | None


def measure(setup: Setup) -> Report:
    """Both placements."""
    head = ["server and client", "transport", "", "p50 µs", "p99 µs", "p99.9 µs", "mlserve's p50 over it"]
    report = Report("latency", "Round trip of one request at a time, tiny model 8→16→3", head)
    program = _ping_pong(setup)
    for place, client_core in (("on two cores", setup.client_core), ("on one core", setup.server_core)):
        _measure_place(replace(setup, client_core=client_core), place, program, report)
    report.notes.append(f"medians of {setup.rounds_or(ROUNDS)} interleaved rounds of {REQUESTS} requests (least-most)")
    report.notes.append("bare TCP: the same number of bytes to and fro, by epoll, without HTTP, gRPC or a model")
    return report


def _measure_place(setup: Setup, place: str, program: Path | None, report: Report) -> None:
    with ExitStack() as stack:
        servers = [launch_mlserve(setup, MODELS, TINY, core=setup.server_core)]
        servers += launch_before(setup, MODELS, TINY, core=setup.server_core)
        if setup.triton_run is not None:
            servers.append(launch_triton(setup, TINY, core=setup.server_core))
            unbatched = launch_triton(setup, TINY, core=setup.server_core, batching=False)
            servers.append(replace(unbatched, name="Triton, no batcher"))
        for server in servers:
            stack.enter_context(running(server))
        for server in servers:
            wait_and_check(setup, server, TINY)
        sources = [Source(server.name, transport, server) for transport in ("gRPC", "HTTP JSON") for server in servers]
        if program is not None:
            sources.append(Source("bare TCP", "-", None))
        found: dict[Source, list[dict[str, float]]] = {source: [] for source in sources}
        for number in range(setup.rounds_or(ROUNDS)):
            # Every other round backwards: who comes after whom must not matter.
            for source in sources[:: -1 if number % 2 else 1]:
                found[source].append(_shares(_round_trips(source, setup, program)))
    _add(report, place, found)


def _round_trips(source: Source, setup: Setup, program: Path | None) -> list[float]:
    """Microseconds of each request, in order."""
    log = setup.folder / "latency.log"
    log.unlink(missing_ok=True)
    count = REQUESTS + SKIPPED
    body = setup.folder / "latency.body"
    if source.server is None:
        size = [len(TINY.grpc_frame()) + REQUEST_HEAD_BYTES, _answer_bytes(setup)]
        cores = [setup.server_core, setup.client_core]
        command = [*pinned(None), str(program), *(str(number) for number in [*cores, *size, count])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=load.LIMIT_S, check=True)
        return [int(line) / 1e3 for line in done.stdout.split()][SKIPPED:]
    if source.transport == "gRPC":
        body.write_bytes(TINY.grpc_frame())
        url, options = f"http://{source.server.grpc}{INFER}", load.GRPC_HEADERS
    else:
        body.write_bytes(TINY.json_body())
        url = f"http://{source.server.http}{TINY.http_path()}"
        options = ["--h1", "-H", "content-type: application/json"]
    counts = source.server.counts()
    loaded = load.h2load(url, body, ALONE, count, setup, *options, f"--log-file={log}")
    now = source.server.counts()
    if (now.ok - counts.ok, now.failed - counts.failed) != (count, 0):
        raise BenchmarkError(f"{source.name}: counted {now.ok - counts.ok} right answers of {count}")
    if source.transport == "gRPC" and source.name == "mlserve":
        (setup.folder / "answer-bytes").write_text(str(loaded.received_bytes // count), encoding="ascii")
    return [float(line.split("\t")[2]) for line in log.read_text(encoding="ascii").splitlines()][SKIPPED:]


def _answer_bytes(setup: Setup) -> int:
    """Bytes of one of our answers on the wire, as the round's measurement found them."""
    return int((setup.folder / "answer-bytes").read_text(encoding="ascii"))


def _shares(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    return {name: percentile(ordered, share) for name, share in SHARES.items()}


def _ping_pong(setup: Setup) -> Path | None:
    """Compiles the ping-pong; `None` where there is no C compiler."""
    program = setup.folder / "ping_pong"
    source = ROOT / "benchmarks" / "ping_pong.c"
    try:
        subprocess.run([tool("cc"), "-O2", "-o", str(program), str(source)], check=True, capture_output=True)
    except BenchmarkError:
        return None
    return program


def _add(report: Report, place: str, found: dict[Source, list[dict[str, float]]]) -> None:
    p50 = {source: [shares["p50"] for shares in rounds] for source, rounds in found.items()}
    ours = {source.transport: taken for source, taken in p50.items() if source.name == "mlserve"}
    for source, rounds in found.items():
        is_other = source.server is not None and source.name != "mlserve"
        ratio = ratio_of(ours[source.transport], p50[source]) if is_other else None
        spreads = [Spread.of([shares[name] for shares in rounds]).text(0) for name in SHARES]
        report.rows.append([place, source.transport, source.name, *spreads, ratio.text(2) if ratio else ""])
        report.measurements.append(
            {"place": place, "transport": source.transport, "of": source.name, "rounds_us": rounds}
        )
        if ratio and source.transport == "gRPC" and source.name.startswith("Triton"):
            report.targets.append(Target(f"gRPC {place}, p50 over that of {source.name}:", ratio.median, BOUND, "x"))
    if not any(source.name.startswith("Triton") for source in found):
        report.rows.append([place, "gRPC", "Triton", NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, ""])
