"""Ten thousand small models that are looked at: what the descriptions cost, and who waits for them.

The document of all routes, ten scrapers of the metrics, ten that ask for the statistics of all models; beside each, a
probe of liveness and a small request, one after the other.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection

import grpc

from figures.cpu import TINY
from figures.many_models import READY_LIMIT_S
from figures.report import Report
from figures.servers import Server, launch_mlserve, running, wait_for_answer
from figures.setup import BenchmarkError, Setup
from figures.spread import Target, percentile
from figures.subject import Subject

MODELS = 10_000
ONLOOKERS = 10
# Long enough that each of the onlookers has come back.
WATCHED_S = 10.0
STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
# Liveness is asked with a timeout of a second as a rule.
LIVE_BOUND_MS = 100.0
DOCUMENT_BOUND_MS = 1_000.0
HEAD = ["beside", "/livez p99 ms", "request p99 ms", "looks", "MB each"]


def measure(setup: Setup) -> Report:
    """Starts one server, and looks at it in each way."""
    report = Report("onlookers", f"{MODELS:,} small models that are looked at", HEAD)
    repository = setup.folder / "onlookers"
    for number in range(MODELS):
        file = repository / f"m{number:05}" / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        shutil.copy(TINY.path, file)
    subject = replace(TINY, name="m00000")
    ready = setup.folder / "onlookers.json"
    with ExitStack() as stack:
        flags = [f"--ready-file={ready}"]
        server = stack.enter_context(running(launch_mlserve(setup, repository, subject, core=None, flags=flags)))
        begun = time.perf_counter()
        while not ready.is_file():
            if server.process.poll() is not None or time.perf_counter() - begun > READY_LIMIT_S * 10:
                raise BenchmarkError("the server with ten thousand models did not become ready")
            time.sleep(0.1)
        report.notes.append(f"ready after {time.perf_counter() - begun:.0f} s")
        wait_for_answer(setup, server, subject)
        _describe_document(report, server)
        looks: dict[str, Callable[[Server], int]] = {
            "nobody": lambda _: 0,
            f"{ONLOOKERS} scrapers": lambda each: len(_get(each.metrics or "", "/metrics")),
            f"{ONLOOKERS} times ModelStatistics": _statistics,
            f"{ONLOOKERS} times /openapi.json": lambda each: len(_get(each.http, "/openapi.json")),
        }
        for name, look in looks.items():
            _watch(report, server, subject, name, look)
    return report


def _describe_document(report: Report, server: Server) -> None:
    for name, path in (("all", "/openapi.json"), ("one", "/openapi.json?model=m00007")):
        took, size = [], 0
        for _ in range(3):
            begun = time.perf_counter()
            size = len(_get(server.http, path))
            took.append((time.perf_counter() - begun) * 1e3)
        report.measurements.append({"document": name, "ms": took, "bytes": size})
        report.notes.append(f"{path}: {took[0]:.0f} ms, then {min(took[1:]):.1f} ms; {size / 1e6:.2f} MB")
        report.targets.append(Target(f"{path}, first time", took[0], DOCUMENT_BOUND_MS, "ms"))


def _watch(report: Report, server: Server, subject: Subject, name: str, look: Callable[[Server], int]) -> None:
    end = threading.Event()
    sizes: list[int] = []

    def onlook() -> None:
        while not end.is_set():
            sizes.append(look(server))
            if not sizes[-1]:
                return

    onlookers = [threading.Thread(target=onlook) for _ in range(ONLOOKERS)]
    for onlooker in onlookers:
        onlooker.start()
    live, requests = [], []
    body = subject.json_body()
    deadline = time.perf_counter() + WATCHED_S
    while time.perf_counter() < deadline:
        live.append(_timed(lambda: _get(server.metrics or "", "/livez")))
        requests.append(_timed(lambda: _get(server.http, subject.http_path(), body)))
    end.set()
    for onlooker in onlookers:
        onlooker.join()
    worst = [percentile(sorted(times), 0.99) for times in (live, requests)]
    size = max(sizes, default=0) / 1e6
    report.rows.append([name, *(f"{ms:.1f}" for ms in worst), str(len(sizes)), f"{size:.1f}"])
    report.measurements.append({"beside": name, "live_ms": live, "request_ms": requests, "looks": len(sizes)})
    report.targets.append(Target(f"/livez beside {name}, p99", worst[0], LIVE_BOUND_MS, "ms"))


def _timed(ask: Callable[[], object]) -> float:
    begun = time.perf_counter()
    ask()
    return (time.perf_counter() - begun) * 1e3


def _get(address: str, path: str, body: bytes | None = None) -> bytes:
    connection = HTTPConnection(address, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchmarkError(f"{path} answers {answer.status}: {content[:200]!r}")
    return content


def _statistics(server: Server) -> int:
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return len(channel.unary_unary(STATISTICS)(b"", timeout=60))
