"""Reloading a model of 50 MB under load: whether any answer is lost or wrong, what it costs latency, and where memory goes.

Every version adds its own number to the answer, so that an answer tells which file gave it; it must be the version that
it names, and none that was replaced before the request was sent. Latency: windows without and with reloads, interleaved.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from figures import consumption, load
from figures.checked import Checked, Checker
from figures.load import Shape
from figures.report import Report
from figures.servers import STOP_LIMIT_S, Server, launch_mlserve, running, wait_for_answer
from figures.setup import BenchmarkError, Setup
from figures.spread import Spread, Target, percentile, ratio_of
from figures.subject import INFER, Subject

NAME = "table"
WIDTH = 8
# Rows of 8 floats: 50 MB.
ENTRIES = 1_562_500
RELOADS = 100
REQUESTS = 1_000_000
ROUNDS = 12
SHAPE = Shape(4, 4)
# Some fifth of what one core takes of this model.
CONNECTIONS = 8
RATE = 1_000
SETTLE_S = 3.0
EARLY = 5
# The bounds.
BOUND_P99 = 1.3
BOUND_MEMORY = 1.1
LOAD_LIMIT_S = 60.0


@dataclass
class Repository:
    """A model whose versions come one after the other."""

    folder: Path
    version: int = 0

    @property
    def file(self) -> Path:
        """The file of the present version."""
        return self.folder / NAME / str(self.version) / "model.onnx"

    def subject(self) -> Subject:
        """The present version, for requests and right answers."""
        return Subject(NAME, self.file, WIDTH, WIDTH)

    def advance(self, table: np.ndarray) -> None:
        """Puts the next version there, whole, and takes the one before the last away."""
        old = self.folder / NAME / str(self.version - 1)
        self.version += 1
        self.file.parent.mkdir(parents=True)
        partial = self.file.with_suffix(".partial")
        partial.write_bytes(_model(table, self.version))
        partial.rename(self.file)
        if old.is_dir():
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def _model(table: np.ndarray, version: int) -> bytes:
    """The answer is the input plus a row that it chooses, so that nothing can be folded, plus the version."""
    nodes = [
        helper.make_node("ArgMin", ["input"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Add", ["input", "row"], ["sum"]),
        helper.make_node("Add", ["sum", "version"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([version], np.float32), "version"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        NAME,
        [value("input", TensorProto.FLOAT, ["batch", WIDTH])],
        [value("output", TensorProto.FLOAT, ["batch", WIDTH])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def measure(setup: Setup) -> Report:
    """Right answers and memory on one server, latency on another."""
    table = np.random.default_rng(7).integers(0, 9, (ENTRIES, WIDTH)).astype(np.float32)
    head = ["", "found", "bound"]
    report = Report("reload", "Reloading a model of 50 MB under load, server on one core", head)
    _answers_and_memory(setup, table, report)
    _latency(setup, table, report)
    return report


def _server(setup: Setup, repository: Repository) -> Server:
    flags = ["--model-control-mode=explicit", f"--load-models={NAME}"]
    server = launch_mlserve(setup, repository.folder, repository.subject(), core=setup.server_core, flags=flags)
    wait_for_answer(setup, server, repository.subject())
    return server


def _reload(server: Server) -> float:
    """Has the model loaded; returns the seconds it took."""
    begun = time.perf_counter()
    connection = HTTPConnection(server.http, timeout=LOAD_LIMIT_S)
    try:
        connection.request("POST", f"/v2/repository/models/{NAME}/load", b"")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchmarkError(f"the load was refused: {answer.status} {text}")
    return time.perf_counter() - begun


def _answers_and_memory(setup: Setup, table: np.ndarray, report: Report) -> None:
    repository = Repository(setup.folder / "reload")
    repository.advance(table)
    reloads = RELOADS if setup.rounds is None else setup.rounds
    taken, resident = [], {}
    with running(_server(setup, repository)) as server:
        subject = repository.subject()
        row = subject.row()
        plain = row + table[row.argmin(axis=1)]
        checker = Checker(server.grpc, subject.grpc_message(), SHAPE, lambda version: plain + np.float32(version))
        checker.oldest = repository.version
        thread = threading.Thread(target=checker.run, daemon=True)
        thread.start()
        try:
            while len(taken) < reloads or checker.found.answers < REQUESTS * reloads // RELOADS:
                if len(taken) < reloads:
                    repository.advance(table)
                    taken.append(_reload(server))
                    # Whoever asks from now on must not meet the old version.
                    checker.oldest = repository.version
                else:
                    time.sleep(0.1)
                if checker.error is not None:
                    break
                if len(taken) in {EARLY, reloads} and len(taken) not in resident:
                    checker.pause()
                    time.sleep(SETTLE_S)
                    resident[len(taken)] = consumption.resident_bytes(server.process.pid) / 1e6
                    checker.resume()
        finally:
            checker.stop()
            thread.join(STOP_LIMIT_S)
    if checker.error is not None:
        raise BenchmarkError(f"the load ended early: {checker.error}")
    _report_answers(report, checker.found, taken, resident)


def _report_answers(report: Report, found: Checked, taken: list[float], resident: dict[int, float]) -> None:
    wrong = found.wrong_values + found.wrong_versions
    report.rows += [
        ["answers checked, over reloads", f"{found.answers:,} over {len(taken)}", ""],
        ["failed", str(found.failed), "0"],
        ["wrong values, or a version that was replaced before", str(wrong), "0"],
        ["seconds from the order to load until it is done", Spread.of(taken).text(2), ""],
    ]
    report.measurements.append(
        {
            "answers": found.answers,
            "failed": found.failed,
            "wrong_values": found.wrong_values,
            "wrong_versions": found.wrong_versions,
            "examples": found.examples,
            "reload_s": [round(each, 3) for each in taken],
            "resident_mb": resident,
        }
    )
    report.targets.append(Target("failed or wrong answers", found.failed + wrong, 0, "answers"))
    if len(resident) > 1:
        early, late = resident[min(resident)], resident[max(resident)]
        cell = f"{early:.1f} after {min(resident)}, {late:.1f} after {max(resident)}"
        report.rows.append(["resident MB", cell, f"{early * BOUND_MEMORY:.1f}"])
        target = f"resident memory after {max(resident)} reloads over that after {min(resident)}"
        report.targets.append(Target(target, late / early, BOUND_MEMORY, "x"))


def _latency(setup: Setup, table: np.ndarray, report: Report) -> None:
    repository = Repository(setup.folder / "latency")
    repository.advance(table)
    body = setup.folder / "reload.frame"
    p99: dict[bool, list[float]] = {False: [], True: []}
    taken: list[float] = []
    with running(_server(setup, repository)) as server:
        body.write_bytes(repository.subject().grpc_frame())
        for number in range(setup.rounds_or(ROUNDS)):
            for is_reloading in (False, True) if number % 2 else (True, False):
                ended = threading.Event()
                reloader = threading.Thread(target=_keep_reloading, args=(server, repository.file, ended, taken))
                if is_reloading:
                    reloader.start()
                p99[is_reloading].append(_p99_under_load(server, body, setup))
                ended.set()
                if is_reloading:
                    reloader.join()
    ratio = ratio_of(p99[True], p99[False])
    rows = [("p99 µs, no reload", p99[False]), ("p99 µs, one reload after the other", p99[True])]
    report.rows += [[name, Spread.of(values).text(0), ""] for name, values in rows]
    report.rows.append(["seconds of a reload then", Spread.of(taken).text(2), ""])
    if ratio is not None:
        report.rows.append(["p99 with reloads over p99 without", ratio.text(2), f"{BOUND_P99}"])
        report.targets.append(Target("p99 during reloads over p99 without", ratio.median, BOUND_P99, "x"))
    report.measurements.append({"p99_us": p99[False], "p99_reloading_us": p99[True], "reload_s": taken})
    report.notes.append(
        f"latency: medians of {setup.rounds_or(ROUNDS)} interleaved rounds (least-most), {CONNECTIONS} connections with "
        f"{RATE} requests per second each; {len(taken)} reloads"
    )


def _p99_under_load(server: Server, body: Path, setup: Setup) -> float:
    """Requests at a steady rate, some of what the server could take: latency, not the length of a queue."""
    log = setup.folder / "reload.log"
    log.unlink(missing_ok=True)
    count = int(CONNECTIONS * RATE * setup.window_s)
    options = [*load.GRPC_HEADERS, f"--rps={RATE}", f"--log-file={log}"]
    load.h2load(f"http://{server.grpc}{INFER}", body, Shape(CONNECTIONS, 1), count, setup, *options)
    return _p99(log)


def _keep_reloading(server: Server, file: Path, ended: threading.Event, taken: list[float]) -> None:
    while not ended.is_set():
        # Another time of change: to the server these are other files.
        file.touch()
        taken.append(_reload(server))


def _p99(log: Path) -> float:
    taken = sorted(float(line.split("\t")[2]) for line in log.read_text(encoding="ascii").splitlines())
    return percentile(taken, 0.99)
