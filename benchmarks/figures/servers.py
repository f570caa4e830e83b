"""Starts and stops the servers that are measured, and asks them what they have counted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path

from figures.setup import BenchmarkError, Setup, pinned
from figures.subject import INFER, Subject, check_answers, is_answer
from figures.wire import Connection

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
POLL_S = 0.001
TRITON_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 32
input [ {{ name: "input" data_type: TYPE_FP32 dims: [ {inputs} ] }} ]
output [ {{ name: "output" data_type: TYPE_FP32 dims: [ {outputs} ] }} ]
{batching}instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters [
  {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }},
  {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
]
"""
_SAMPLE = re.compile(r'^mlserve_requests_total\{.*code="([^"]+)"\} (\d+)$', re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """Inference requests by what a server says became of them; cancelled: the caller was gone first."""

    ok: int
    failed: int
    cancelled: int = 0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        name: `mlserve`, `before` or `Triton`.
        process: Its only process.
        grpc: `host:port`.
        http: `host:port`.
        metrics: `host:port` of mlserve's metrics.
        model: What Triton is asked about.
    """

    name: str
    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    metrics: str | None
    model: str

    def counts(self) -> Counts:
        """What it has counted so far."""
        if self.metrics is not None:
            found = _SAMPLE.findall(_get(self.metrics, "/metrics"))
            ok = sum(int(count) for code, count in found if code == "ok")
            cancelled = sum(int(count) for code, count in found if code == "cancelled")
            return Counts(ok, sum(int(count) for _, count in found) - ok - cancelled, cancelled)
        stats = json.loads(_get(self.http, f"/v2/models/{self.model}/stats"))["model_stats"][0]
        success, fail = stats["inference_stats"]["success"], stats["inference_stats"]["fail"]
        return Counts(int(success.get("count", 0)), int(fail.get("count", 0)))

    def metric(self, name: str) -> float:
        """One of mlserve's metrics, summed over its labels."""
        if self.metrics is None:
            raise BenchmarkError(f"{self.name} has no metrics port")
        text = _get(self.metrics, "/metrics")
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def stop(self) -> None:
        """Ends it, at the latest by force."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def _get(address: str, path: str) -> str:
    connection = HTTPConnection(address, timeout=STOP_LIMIT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Stops the server at the end."""
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_mlserve(
    setup: Setup, models: Path, subject: Subject, *, core: int | None, flags: Sequence[str] = (), console: bool = False
) -> Server:
    """Starts mlserve without waiting for it."""
    program = setup.console if console else setup.server
    if program is None or not program.is_file():
        raise BenchmarkError(f"{program or 'the command mlserve'} is not there: build it first, `make bench` does")
    http, grpc, metrics = free_port(), free_port(), free_port()
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    command = [*pinned(core), str(program), "serve", str(models), *ports, *flags]
    # Every other MLSERVE_ variable would be a setting.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVE_")}
    environment["MLSERVE_ORT_LIB"] = str(setup.ort_library)
    process = _spawn(setup, "mlserve", command, environment)
    name = "mlserve (Python command)" if console else "mlserve"
    return Server(name, process, f"127.0.0.1:{grpc}", f"127.0.0.1:{http}", f"127.0.0.1:{metrics}", subject.name)


def launch_before(setup: Setup, models: Path, subject: Subject, *, core: int | None) -> Iterator[Server]:
    """Starts the earlier build, if one is named."""
    if setup.before is not None:
        server = launch_mlserve(replace(setup, server=setup.before), models, subject, core=core)
        yield replace(server, name="before")


def launch_triton(setup: Setup, subject: Subject, *, core: int | None, batching: bool = True) -> Server:
    """Starts Triton without waiting for it."""
    if setup.triton_run is None:
        raise BenchmarkError("Triton is not measured: no --triton-run")
    repository = setup.folder / f"triton-{subject.name}-{'batched' if batching else 'unbatched'}"
    version = repository / subject.name / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(subject.path, version / "model.onnx")
    config = TRITON_CONFIG.format(
        name=subject.name,
        inputs=subject.inputs,
        outputs=subject.outputs,
        batching="dynamic_batching { }\n" if batching else "",
    )
    version.with_name("config.pbtxt").write_text(config, encoding="utf-8")
    http, grpc = free_port(), free_port()
    starter = [str(setup.triton_run), str(repository), str(grpc), str(http), str(setup.triton_venv)]
    process = _spawn(setup, "triton", [*pinned(core), *starter], {**os.environ, "OMP_NUM_THREADS": "1"})
    return Server("Triton", process, f"127.0.0.1:{grpc}", f"127.0.0.1:{http}", None, subject.name)


def _spawn(setup: Setup, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (setup.folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def wait_and_check(setup: Setup, server: Server, subject: Subject) -> None:
    """Waits for the first answer, then for HTTP, which Triton opens later, and holds all transports to the truth."""
    wait_for_answer(setup, server, subject)
    host, port = server.http.rsplit(":", 1)
    end = time.perf_counter() + START_LIMIT_S
    while time.perf_counter() < end:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                break
        time.sleep(POLL_S)
    check_answers(subject, server.grpc, server.http)


def wait_for_answer(setup: Setup, server: Server, subject: Subject) -> float:
    """Asks over gRPC until the first right answer; gives the clock's time of it.

    Errors: the server ended, or took longer than the limit.
    """
    message, expected = subject.grpc_message(), subject.expected()
    end = time.perf_counter() + START_LIMIT_S
    connection: Connection | None = None
    while time.perf_counter() < end:
        try:
            connection = connection or Connection(server.grpc, START_LIMIT_S)
            if is_answer(connection.data_of(INFER, message), expected):
                return time.perf_counter()
        except (OSError, ValueError):
            connection = None
            if server.process.poll() is not None:
                break
        time.sleep(POLL_S)
    server.stop()
    log = setup.folder / ("triton.log" if server.name == "Triton" else "mlserve.log")
    tail = log.read_text(encoding="utf-8", errors="replace")[-1_500:]
    raise BenchmarkError(f"{server.name} gave no right answer; it said: {tail}")
