"""Sends load: h2load for gRPC, wrk for HTTP/1.1; and measures what it cost the server.

A load is a number of requests, not a time, wherever the tool can: then every request that was paid for is counted.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from figures import consumption, machine
from figures.servers import Server
from figures.setup import BenchmarkError, Setup, pinned, tool

LIMIT_S = 120.0
GRPC_HEADERS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
WARM_UP_REQUESTS = 4_000
_RATE = re.compile(r"finished in ([\d.]+)(us|ms|s|m), ([\d.]+) req/s")
_DONE = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_RECEIVED = re.compile(r"traffic: \S+ \((\d+)\) total")
_WRK = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m)")


@dataclass(frozen=True)
class Shape:
    """Connections, and requests at once on each."""

    connections: int
    streams: int

    def name(self) -> str:
        """For tables."""
        return f"{self.connections}x{self.streams}"


@dataclass(frozen=True)
class Loaded:
    """What a tool says it has done."""

    requests: int
    requests_per_s: float
    received_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """One measurement.

    Attributes:
        requests: Answered by the server, by its own count.
        cpu_us: CPU time of the server for each.
        requests_per_s: As the client saw it.
        other_cores: Cores that other processes of the machine kept busy meanwhile.
        client_cores: Cores that the client used; near 1 it is the bottleneck.
    """

    requests: int
    cpu_us: float
    requests_per_s: float
    other_cores: float
    client_cores: float


def h2load(url: str, body: Path, shape: Shape, requests: int, setup: Setup, *options: str) -> Loaded:
    """Sends exactly `requests` requests, from the client's core."""
    size = ["-n", str(requests), "-c", str(shape.connections), "-m", str(shape.streams), "-t", "1"]
    command = [*pinned(setup.client_core), tool("h2load"), *size, "-d", str(body), *options, url]
    text = _output(command)
    rate, done, received = _RATE.search(text), _DONE.search(text), _RECEIVED.search(text)
    if rate is None or done is None or received is None:
        raise BenchmarkError(f"h2load said: {text[-600:]}")
    if int(done.group(3)) != requests:
        raise BenchmarkError(f"h2load: {done.group(0)}")
    return Loaded(requests, float(rate.group(3)), int(received.group(1)))


def grpc(server: Server, rpc: str, body: Path, shape: Shape, requests: int, setup: Setup) -> Loaded:
    """Unary calls."""
    return h2load(f"http://{server.grpc}{rpc}", body, shape, requests, setup, *GRPC_HEADERS)


def wrk(url: str, script: Path, connections: int, setup: Setup) -> Loaded:
    """Requests over HTTP/1.1, one at a time on each connection, for the length of a window."""
    seconds = max(1, round(setup.window_s))
    size = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", str(script)]
    text = _output([*pinned(setup.client_core), tool("wrk"), *size, url])
    found = _WRK.search(text)
    if found is None or "Non-2xx" in text or "Socket errors" in text:
        raise BenchmarkError(f"wrk said: {text[-600:]}")
    taken_s = float(found.group(2)) * {"ms": 1e-3, "s": 1.0, "m": 60.0}[found.group(3)]
    return Loaded(int(found.group(1)), int(found.group(1)) / taken_s)


def wrk_script(folder: Path, name: str, body: bytes, headers: dict[str, str]) -> Path:
    """The request, as wrk's Lua."""
    escaped = "".join(f"\\x{byte:02x}" for byte in body)
    lines = ['wrk.method = "POST"', f'wrk.body = "{escaped}"']
    lines += [f'wrk.headers["{key}"] = "{value}"' for key, value in headers.items()]
    path = folder / f"{name}.lua"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def measured(server: Server, load: Callable[[], Loaded], *, counted: bool = True) -> Cost:
    """Runs a load and says what it cost; `counted`: the server counts these requests.

    Errors: requests that the server answered with an error, or did not count.
    """
    pid = server.process.pid
    counts, busy, spent, client = server.counts(), machine.busy_s(), consumption.cpu_s(pid), _children_s()
    loaded = load()
    spent, client, busy = consumption.cpu_s(pid) - spent, _children_s() - client, machine.busy_s() - busy
    now = server.counts()
    answered = now.ok - counts.ok if counted else loaded.requests
    # wrk goes before its last requests are answered: the server has counted a few more, some of them cancelled.
    if now.failed != counts.failed or answered < loaded.requests:
        failed = now.failed - counts.failed
        raise BenchmarkError(
            f"{server.name}: {answered} right answers and {failed} errors of {loaded.requests} requests"
        )
    taken_s = loaded.requests / loaded.requests_per_s
    other = max(0.0, busy - spent - client) / taken_s
    return Cost(answered, spent / answered * 1e6, loaded.requests_per_s, round(other, 2), round(client / taken_s, 2))


def enough(load: Callable[[int], Loaded], shape: Shape, setup: Setup) -> int:
    """Warms a server up and says how many requests fill a window."""
    loaded = load(max(WARM_UP_REQUESTS, 20 * shape.connections * shape.streams))
    return max(WARM_UP_REQUESTS // 4, int(loaded.requests_per_s * setup.window_s))


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{Path(command[0]).name} ended with status {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
