"""Servers for tests: a real `mlserve serve` process, or one inside the test's own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from mlserve import Server

# Tests that run the runtime themselves keep its telemetry off as servers do; before anything imports it.
os.environ.update({"ORT_DISABLE_TELEMETRY": "1", "ORT_TELEMETRY_DISABLED": "1"})

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_MODELS = ROOT / "examples" / "models"
# Where waiting ends and a test fails. None of these is a time that anything is given: they are for what never comes, and
# so long that a machine that is busy with something else does not meet them.
START_LIMIT_S = 90.0
STOP_LIMIT_S = 60.0
HANG_LIMIT_S = 300.0
# By how much the limits of single waits are longer than a quiet machine needs.
PATIENCE = 10.0
# How often a condition is looked at again; not a time that anything is given.
POLL_S = 0.01


# Whoever starts the tests may have blocked these; the servers that they start must hear them.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets no test hang for ever, and none fail because the machine is busy."""
    for item in items:
        given = item.get_closest_marker("timeout")
        if given is None or given.args[0] < HANG_LIMIT_S:
            item.add_marker(pytest.mark.timeout(HANG_LIMIT_S), append=False)


def eventually(condition: Callable[[], bool], *, limit_s: float, what: str) -> None:
    """Waits until a condition holds, and fails with `what` if it never does.

    `limit_s` is what a quiet machine needs at most.
    """
    end = time.monotonic() + limit_s * PATIENCE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {limit_s * PATIENCE} s: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class ServerProcess:
    """A running `mlserve serve`.

    Attributes:
        process: The process, for signals and its exit status.
        http: `host:port` of the first data port.
        grpc: `host:port` of the second data port.
        metrics: `host:port` of metrics and health.
        log: File with its standard error.
    """

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    metrics: str
    log: Path

    def stop(self) -> int:
        """Asks it to stop and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT_S)


class StartServer(Protocol):
    """Starts a server process for the models at a path; its streams go to its log file unless they are given."""

    def __call__(
        self,
        path: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> ServerProcess: ...


@contextmanager
def serving(folder: Path) -> Iterator[StartServer]:
    """Gives a function that starts servers on free ports; what still runs at the end is stopped."""
    started: list[ServerProcess] = []

    def start(
        path: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> ServerProcess:
        ready = folder / f"ready-{len(started)}.json"
        log = folder / f"log-{len(started)}.txt"
        ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
        command = [sys.executable, "-m", "mlserve", "serve", str(path), *ports, "--ready-file", str(ready), *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output if stdout is None else stdout,
                stderr=output if stderr is None else stderr,
                env={**os.environ, **(env or {})},
            )
        try:
            eventually(
                lambda: ready.exists() or process.poll() is not None,
                limit_s=START_LIMIT_S,
                what=f"server ready; it said: {log.read_text(errors='replace')}",
            )
            if not ready.exists():
                pytest.fail(f"server ended with status {process.returncode}: {log.read_text(errors='replace')}")
        except BaseException:
            process.kill()
            process.wait()
            raise
        found: dict[str, Any] = json.loads(ready.read_text())
        server = ServerProcess(process, found["http"], found["grpc"], found["metrics"], log)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers have their temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts `mlserve serve` processes that end with the test."""
    with serving(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def example_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process that serves the example models for the whole run; tests must leave it as it was."""
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(EXAMPLE_MODELS)


@pytest.fixture(scope="session")
def graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the graphs that tests build."""
    from tests import graphs  # noqa: PLC0415 -- onnx takes half a second, which most tests do not need

    return graphs.write_all(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def graph_server(tmp_path_factory: pytest.TempPathFactory, graph_folder: Path) -> Iterator[ServerProcess]:
    """One process that serves those graphs and tells who shared a batch; tests must leave it as it was."""
    with serving(tmp_path_factory.mktemp("graph-server")) as start:
        yield start(graph_folder, "--report-batches")


@pytest.fixture
def in_process_server() -> Iterator[Server]:
    """The example models, served by this very process."""
    from mlserve import Server  # noqa: PLC0415 -- needs the extension, as few tests do

    with Server(EXAMPLE_MODELS) as server:
        yield server
