"""1,000 connections ask for a large answer and never read it: what that costs the server, and who is still served.

The answers would take fifteen times the byte budget. Three ways: a small HTTP/2 window holds the answer back in the
server's streams, a large one lets it go to the socket until that is full, and over HTTP/1.1 there is no window at all.

Two figures: what the readers cost for as long as they stay, over the server at rest; and the burst when they come, over
the burst when as many come who read, since large batches need room whoever asked for them.
"""

from __future__ import annotations

import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from figures import consumption, load, wire
from figures.cpu import TINY
from figures.load import Shape
from figures.report import Report
from figures.servers import Server, launch_mlserve, running, wait_for_answer
from figures.setup import BenchmarkError, Setup
from figures.spread import Target
from figures.subject import INFER, Subject, check_answers
from figures.wide import Polite, ask_politely, make_wide

CONNECTIONS = 1_000
# More than one, so that what each leaves behind would add up.
WAVES = 2
BUDGET_BYTES = 64 << 20
# Long enough for the server to give back what the burst left behind.
HOLD_S = 8.0
REST_S = 8.0
RECOVERED_REQUESTS = 20
# Longer than the hold, so that what is seen is the budget's work and not the time limit's.
WRITE_TIMEOUT_MS = 20_000
FLAGS = [
    f"--byte-budget={BUDGET_BYTES}",
    "--max-body-bytes=1048576",
    f"--write-timeout-ms={WRITE_TIMEOUT_MS}",
    "--max-connections=4000",
]
# Requests of the crowd that reads: several for each connection.
CROWD_REQUESTS = 4_000
HEAD = [
    "readers",
    "RSS MB: at rest",
    "crowd that reads",
    "never read: burst",
    "stays",
    "after",
    "small requests meanwhile",
    "large ones",
]


@dataclass(frozen=True)
class Way:
    """How the connections ask: the server's port, and the bytes that each sends."""

    name: str
    port: str
    sent: bytes


@dataclass(frozen=True)
class Wave:
    """Bytes: the most resident, resident at the end of the hold and after a rest; and the budget drawn then."""

    peak: int
    held: int
    after: int
    drawn_held: float
    drawn_after: float


def measure(setup: Setup) -> Report:
    """Each way against a server of its own."""
    report = Report("slow_reader", f"{CONNECTIONS} connections that ask for 1 MiB each and never read", HEAD)
    _allow_sockets()
    wide = make_wide(setup.folder / "wide")
    message, body = wide.grpc_message(), wide.json_body()
    request = f"POST {wide.http_path()} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    ways = [
        Way("gRPC, window of 64 KiB", "grpc", wire.opening(wire.DEFAULT_WINDOW) + wire.call(INFER, message)),
        Way("gRPC, window of 2 GiB", "grpc", wire.opening(wire.LARGEST_WINDOW) + wire.call(INFER, message)),
        Way("HTTP/1.1", "http", request + body),
    ]
    for way in ways:
        _measure_way(setup, wide, way, report)
    report.notes += [
        f"--byte-budget {BUDGET_BYTES / 1e6:.1f} MB; {WAVES} waves of {CONNECTIONS} connections, held {HOLD_S:.0f} s each",
        "crowd that reads: the most while as many connections read as large answers; burst: the most of all waves",
        f"stays: at the end of the last hold; at rest, after: {REST_S:.0f} s without a connection",
    ]
    return report


def _measure_way(setup: Setup, wide: Subject, way: Way, report: Report) -> None:
    small, large, recovered = Polite(), Polite(), Polite()
    with running(launch_mlserve(setup, wide.path.parents[2], wide, core=None, flags=FLAGS)) as server:
        wait_for_answer(setup, server, wide)
        check_answers(wide, server.grpc, None)
        time.sleep(REST_S)
        crowd = _crowd(setup, server, wide)
        time.sleep(REST_S)
        rest = consumption.resident_bytes(server.process.pid)
        waves = [_wave(server, way, [(TINY, small), (wide, large)]) for _ in range(WAVES)]
        ask_politely(
            server, [(wide, recovered)], lambda: recovered.ok + sum(recovered.refused.values()) >= RECOVERED_REQUESTS
        )
    peak, last = max(wave.peak for wave in waves), waves[-1]
    cells = [f"{size / 1e6:,.0f}" for size in (rest, crowd, peak, last.held, last.after)]
    report.rows.append([way.name, *cells, small.text(), large.text()])
    clients = {"small": asdict(small), "large": asdict(large), "recovered": asdict(recovered)}
    found = {"at_rest_bytes": rest, "crowd_bytes": crowd, "waves": [asdict(wave) for wave in waves], **clients}
    report.measurements.append({"readers": way.name, "budget_bytes": BUDGET_BYTES, **found})
    bound = BUDGET_BYTES / 1e6
    report.targets.append(
        Target(f"{way.name}, what stays over the server at rest", (last.held - rest) / 1e6, bound, "MB")
    )
    report.targets.append(Target(f"{way.name}, burst over a crowd that reads", (peak - crowd) / 1e6, bound, "MB"))
    if small.ok == 0 or recovered.ok < RECOVERED_REQUESTS:
        report.failures.append(f"{way.name}: who reads was not served: {small.text()}; after: {recovered.text()}")


def _crowd(setup: Setup, server: Server, wide: Subject) -> int:
    """The most resident bytes while as many connections ask for as large answers, and read them."""
    body = setup.folder / "wide.frame"
    body.write_bytes(wide.grpc_frame())
    consumption.reset_peak(server.process.pid)
    # Some are refused, since 1,000 answers are more than the budget; h2load does not mind.
    url, shape = f"http://{server.grpc}{INFER}", Shape(CONNECTIONS, 1)
    load.h2load(url, body, shape, CROWD_REQUESTS, setup, *load.GRPC_HEADERS)
    return consumption.peak_bytes(server.process.pid)


def _wave(server: Server, way: Way, polite: list[tuple[Subject, Polite]]) -> Wave:
    pid = server.process.pid
    consumption.reset_peak(pid)
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        end = time.perf_counter() + HOLD_S
        asking = threads.submit(ask_politely, server, polite, lambda: time.perf_counter() >= end)
        _open(server.grpc if way.port == "grpc" else server.http, way.sent, stack)
        asking.result()
        peak, held = consumption.peak_bytes(pid), consumption.resident_bytes(pid)
        drawn = server.metric("mlserve_budget_bytes")
    time.sleep(REST_S)
    return Wave(peak, held, consumption.resident_bytes(pid), drawn, server.metric("mlserve_budget_bytes"))


def _open(address: str, sent: bytes, stack: ExitStack) -> None:
    """The connections, each of which asks; their receive buffers are the least that the kernel gives."""
    host, port = address.rsplit(":", 1)
    for _ in range(CONNECTIONS):
        peer = stack.enter_context(socket.socket())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        peer.connect((host, int(port)))
        peer.sendall(sent)


def _allow_sockets() -> None:
    """Server and client need a descriptor for each connection."""
    present, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000 if most == resource.RLIM_INFINITY else min(most, 10_000)
    if max(wanted, present) < 3 * CONNECTIONS:
        raise BenchmarkError(f"{most} file descriptors allowed, {3 * CONNECTIONS} needed: raise ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, present), most))
