"""Standard streams and log files that take nothing: closed, full, or read by nobody. They cost lines and nothing else."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import START_LIMIT_S, STOP_LIMIT_S, ServerProcess, eventually
from tests.oracle import metric
from tests.raw_http import ask, connected, head
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

QUICK = ("--drain-notice-ms", "0")
SOUND = Inference("mlp", [Tensor.of("x", np.ones((1, 8), np.float32), "FP32")])
# More lines than a pipe holds (64 KiB) and than may wait for it (4,096), each in answer to one request.
LINES = 6_000
# Answers of one connection that are asked for before the first is read.
AT_ONCE = 100
# Serves a model until its input ends; what it logs goes wherever its standard error goes.
IN_PROCESS = """
import sys
from mlserve import Server

with Server(models={"mlp": sys.argv[1]}, log={"log_level": "debug"}) as server:
    print(server.http_url, server.metrics_url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def unread_pipe() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def full_pipe() -> Iterator[int]:
    """A pipe that takes nothing more: whoever writes to it waits for ever."""
    with unread_pipe() as writer:
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"\n" * 4_096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        yield writer


@contextmanager
def broken_pipe() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    """A file on a disk without room."""
    opened = os.open("/dev/full", os.O_WRONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def cause_lines(address: str) -> None:
    """Asks for a model that there is not, and checks that every request is answered."""
    question = head("GET", "/v2/models/nobody")
    with connected(address) as opened:
        for _ in range(LINES // AT_ONCE):
            opened.sendall(question * AT_ONCE)
            found = b""
            while found.count(b"HTTP/1.1 404") < AT_ONCE or not found.endswith(b"}"):
                received = opened.recv(1 << 16)
                assert received, found[-200:]
                found += received


def serves(server: ServerProcess) -> None:
    body, fields = SOUND.body()
    assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
    assert ask(server.metrics, "GET", "/livez").status == 200


def test_a_reader_of_the_log_that_stops_holds_up_no_request(start_server: StartServer, graph_folder: Path) -> None:
    with unread_pipe() as writer:
        server = start_server(graph_folder / "mlp", "--log-level", "debug", *QUICK, stderr=writer)
        cause_lines(server.http)
        serves(server)
        assert metric(server, "mlserve_log_dropped_total") > 0
        assert server.stop() == 0


def test_nor_does_it_in_the_process_of_a_program(graph_folder: Path) -> None:
    command = [sys.executable, "-c", IN_PROCESS, str(graph_folder / "mlp" / "1" / "model.onnx")]
    pipe = subprocess.PIPE
    with unread_pipe() as writer, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=writer) as process:
        try:
            assert process.stdout is not None
            urls = process.stdout.readline().decode().split()
            http, metrics = (url.removeprefix("http://").removesuffix("/metrics") for url in urls)
            cause_lines(http)
            serves(ServerProcess(process, http, "", metrics, graph_folder))
            process.communicate(timeout=STOP_LIMIT_S)
            assert process.returncode == 0
        finally:
            process.kill()


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
@pytest.mark.parametrize("make", [full_pipe, broken_pipe, full_disk])
def test_a_stream_that_takes_nothing_holds_up_neither_start_nor_end(
    start_server: StartServer, graph_folder: Path, make: Callable[[], Any], streams: tuple[str, ...]
) -> None:
    with ExitStack() as stack:
        given = {stream: stack.enter_context(make()) for stream in streams}
        server = start_server(graph_folder / "mlp", *QUICK, **given)
        serves(server)
        assert server.stop() == 0


def test_a_closed_stream_becomes_no_connection(graph_folder: Path) -> None:
    log = graph_folder.parent / "closed.txt"
    command = [sys.executable, "-m", "mlserve", "serve", str(graph_folder / "mlp"), "--access-log", *QUICK]
    ready = graph_folder.parent / "closed.json"
    ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
    shell = ["sh", "-c", 'exec "$@" 0<&- >&- 2>&-', "sh", *command, *ports, "--ready-file", str(ready)]
    with subprocess.Popen(shell) as process:
        try:
            eventually(ready.exists, limit_s=START_LIMIT_S, what="a ready file")
            found = json.loads(ready.read_text())
            server = ServerProcess(process, found["http"], found["grpc"], found["metrics"], log)
            for _ in range(3):
                serves(server)
            assert server.stop() == 0
        finally:
            process.kill()


def test_a_start_that_fails_ends_though_nobody_reads_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00")
    command = [sys.executable, "-m", "mlserve", "serve", str(tmp_path)]
    ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
    with full_pipe() as writer, subprocess.Popen([*command, *ports], stdout=writer, stderr=writer) as process:
        try:
            assert process.wait(START_LIMIT_S + STOP_LIMIT_S) == 1
        finally:
            process.kill()


def test_a_command_whose_reader_has_read_enough_ends_quietly() -> None:
    with broken_pipe() as writer:
        command = [sys.executable, "-m", "mlserve", "config"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=STOP_LIMIT_S)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_says_why_it_cannot_print() -> None:
    with full_disk() as opened:
        command = [sys.executable, "-m", "mlserve", "config"]
        done = subprocess.run(command, stdout=opened, stderr=subprocess.PIPE, check=False, timeout=STOP_LIMIT_S)
    assert done.returncode == 1
    assert b"standard output: No space left" in done.stderr


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_access_log_shares_its_stream_with_nothing(
    start_server: StartServer, graph_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output.txt"
    with output.open("wb") as opened:
        server = start_server(graph_folder / "mlp", "--access-log", *QUICK, stdout=opened.fileno())
    serves(server)
    assert server.stop() == 0
    found = [json.loads(line) for line in lines(output)]
    assert [line["event"] for line in found] == ["access"]
    serving = [line for line in map(json.loads, lines(server.log)) if line.get("message") == "serving"]
    assert [line["http"] for line in serving] == [server.http]


def test_a_file_for_the_access_log_leaves_standard_output_to_people(
    start_server: StartServer, graph_folder: Path, tmp_path: Path
) -> None:
    path, output = tmp_path / "access.log", tmp_path / "output.txt"
    with output.open("wb") as opened:
        flags = ("--access-log", "--access-log-file", str(path))
        server = start_server(graph_folder / "mlp", *flags, *QUICK, stdout=opened.fileno())
    serves(server)
    assert server.stop() == 0
    assert [json.loads(line)["event"] for line in lines(path)] == ["access"]
    assert server.http in output.read_text()


def test_an_access_log_that_cannot_be_written_stops_the_start(graph_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "access.log"
    command = [sys.executable, "-m", "mlserve", "serve", str(graph_folder / "mlp"), "--http-port", "0"]
    flags = ["--grpc-port", "0", "--metrics-port", "0", "--access-log", "--access-log-file", str(path)]
    done = subprocess.run([*command, *flags], capture_output=True, check=False, timeout=START_LIMIT_S)
    assert done.returncode == 1
    assert f"log.access_log_file = {path}" in done.stderr.decode()


def request_named(server: ServerProcess, name: str) -> None:
    body, fields = SOUND.body()
    assert ask(server.http, "POST", SOUND.target, body, {**fields, "x-request-id": name}).status == 200


def has_line(path: Path, name: str) -> bool:
    return any(f'"request_id":"{name}"' in line for line in lines(path))


def test_the_access_log_goes_on_when_the_disk_has_room_again(
    start_server: StartServer, graph_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    server = start_server(graph_folder / "mlp", "--access-log", "--access-log-file", str(path))
    request_named(server, "before")
    eventually(lambda: has_line(path, "before"), limit_s=10, what="a line")
    # Room for a part of the next line.
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 50, most))
    for _ in range(3):
        request_named(server, "lost")
    dropped = "mlserve_access_log_dropped_total"
    eventually(lambda: metric(server, dropped) == 3, limit_s=10, what="three lines lost")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
    request_named(server, "after")
    eventually(lambda: has_line(path, "after"), limit_s=10, what="a line after the disk was full")
    first, torn, last = lines(path)
    assert [json.loads(line)["request_id"] for line in (first, last)] == ["before", "after"]
    assert len(torn) == 50
    assert metric(server, dropped) == 3


def test_traces_that_a_full_disk_does_not_take_are_counted(
    start_server: StartServer, graph_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    server = start_server(graph_folder / "mlp", "--trace-file", str(path))
    settings = json.dumps({"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}).encode()
    assert ask(server.http, "POST", "/v2/trace/setting", settings).status == 200

    def is_traced(name: str) -> bool:
        return any(member.get("request_id") == name for member in json.loads(path.read_text()))

    def trace(name: str) -> None:
        body, fields = Inference("mlp", SOUND.inputs, id=name).body()
        assert ask(server.http, "POST", SOUND.target, body, fields).status == 200

    trace("before")
    eventually(lambda: is_traced("before"), limit_s=10, what="a trace")
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 50, most))
    trace("lost")
    eventually(lambda: metric(server, "mlserve_traces_dropped_total") == 1, limit_s=10, what="one lost")
    assert is_traced("before")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
    trace("after")
    eventually(lambda: is_traced("after"), limit_s=10, what="a trace after the disk was full")
    assert not is_traced("lost")


def test_a_moved_access_log_is_made_again_and_a_hangup_ends_nothing(
    start_server: StartServer, graph_folder: Path, tmp_path: Path
) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    server = start_server(graph_folder / "mlp", "--access-log", "--access-log-file", str(path), *QUICK)
    request_named(server, "one")
    eventually(lambda: has_line(path, "one"), limit_s=10, what="a line")
    path.rename(moved)
    server.process.send_signal(signal.SIGHUP)
    request_named(server, "two")
    eventually(lambda: has_line(path, "two"), limit_s=10, what="a line in a file of the same name")
    assert not has_line(moved, "two")
    assert server.stop() == 0
