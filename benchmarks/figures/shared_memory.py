"""Tensors in shared memory against tensors in messages; and what reading without a mapping costs.

One request at a time, by unmodified tritonclient. The model copies its input, so nearly all that is measured is transfer.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from onnx import TensorProto, helper
from tritonclient.utils import shared_memory as shm

from figures.consumption import cpu_s
from figures.report import Report
from figures.servers import Server, launch_mlserve, running, wait_for_answer
from figures.setup import BenchmarkError, Setup
from figures.spread import Spread, percentile, ratio_of, shown
from figures.subject import Subject

SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "16 MiB": 16 << 20}
MODULES: dict[str, Any] = {"gRPC": grpc_client, "HTTP binary": http_client}
ROUNDS = 5
# Of each form in a round: enough for a median.
LEAST_REQUESTS, MOST_REQUESTS = 20, 500
NAME = "copy"


@dataclass
class Case:
    """One size over one transport, in a message or in shared memory.

    Attributes:
        ask: Sends one request and waits for its answer.
        latencies_us: p50 of each round.
        cpu_us: Of the server for each request, by round.
    """

    transport: str
    size: str
    form: str
    ask: Callable[[], Any]
    latencies_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def run(self, server: Server, window_s: float) -> None:
        """One round."""
        begun, used, taken = time.perf_counter(), cpu_s(server.process.pid), []
        while len(taken) < LEAST_REQUESTS or (len(taken) < MOST_REQUESTS and time.perf_counter() < begun + window_s):
            asked = time.perf_counter_ns()
            self.ask()
            taken.append((time.perf_counter_ns() - asked) / 1e3)
        self.latencies_us.append(percentile(sorted(taken), 0.5))
        self.cpu_us.append((cpu_s(server.process.pid) - used) * 1e6 / len(taken))


def measure(setup: Setup) -> Report:
    """Messages and shared memory alternate inside a round."""
    folder = setup.folder / "copies"
    subject = _make(folder)
    reads = {size: ([], []) for size in SIZES}
    with ExitStack() as stack:
        flags = ["--allow-client-shm"]
        server = stack.enter_context(running(launch_mlserve(setup, folder, subject, core=None, flags=flags)))
        wait_for_answer(setup, server, subject)
        cases = [
            case
            for transport in MODULES
            for size, byte_size in SIZES.items()
            for case in _cases(stack, server, transport, size, byte_size)
        ]
        for _ in range(setup.rounds_or(ROUNDS)):
            for case in cases:
                case.run(server, setup.window_s / 4)
            for size, byte_size in SIZES.items():
                for kept, took in zip(reads[size], _reads_us(byte_size), strict=True):
                    kept.append(took)
    return _report(setup, cases, reads)


def _make(folder: Path) -> Subject:
    """A repository with `copy`, which gives back rows of any width."""
    shape = ["batch", "columns"]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], NAME, tensors[:1], tensors[1:])
    path = folder / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Subject(NAME, path, 8, 8)


def _cases(stack: ExitStack, server: Server, transport: str, size: str, byte_size: int) -> list[Case]:
    module = MODULES[transport]
    client = stack.enter_context(module.InferenceServerClient(server.grpc if transport == "gRPC" else server.http))
    row = np.random.default_rng(5).random((1, byte_size // 4), np.float32)
    sent = module.InferInput("input", list(row.shape), "FP32")
    sent.set_data_from_numpy(row)
    if not np.array_equal(client.infer(NAME, [sent]).as_numpy("output"), row):
        raise BenchmarkError("a tensor in a message came back as another")

    name = f"mlserve-benchmark-{os.getpid()}-{transport[0]}-{byte_size}"
    handle = shm.create_shared_memory_region(name, f"/{name}", 2 * byte_size)
    stack.callback(shm.destroy_shared_memory_region, handle)
    client.register_system_shared_memory(name, f"/{name}", 2 * byte_size)
    given = module.InferInput("input", list(row.shape), "FP32")
    given.set_shared_memory(name, byte_size)
    wanted = module.InferRequestedOutput("output")
    wanted.set_shared_memory(name, byte_size, offset=byte_size)

    def shared() -> npt.NDArray[np.float32]:
        # What a caller does: its row goes in, the answer's comes out, each copied once.
        shm.set_shared_memory_region(handle, [row])
        client.infer(NAME, [given], outputs=[wanted])
        return np.array(shm.get_contents_as_numpy(handle, np.float32, list(row.shape), byte_size))

    def message() -> npt.NDArray[np.float32]:
        sent.set_data_from_numpy(row)
        return np.asarray(client.infer(NAME, [sent]).as_numpy("output"))

    if not np.array_equal(shared(), row):
        raise BenchmarkError("a tensor in shared memory came back as another")
    return [Case(transport, size, "message", message), Case(transport, size, "shared memory", shared)]


def _reads_us(byte_size: int) -> tuple[float, float]:
    """p50 of one copy out of an object: from a mapping, and by `pread` without one."""
    target = np.empty(byte_size, np.uint8)
    with (Path("/dev/shm") / f"mlserve-benchmark-{os.getpid()}").open("w+b") as file:  # noqa: S108 -- shm_open's folder
        try:
            file.truncate(byte_size)
            with mmap.mmap(file.fileno(), byte_size) as mapped:
                source = np.frombuffer(mapped, np.uint8)
                took = (
                    _p50_us(partial(np.copyto, target, source)),
                    _p50_us(partial(os.preadv, file.fileno(), [target], 0)),
                )
                # A mapping in use cannot be closed.
                del source
        finally:
            Path(file.name).unlink()
    return took


def _p50_us(act: Callable[[], Any]) -> float:
    taken = []
    for _ in range(LEAST_REQUESTS * 2):
        begun = time.perf_counter_ns()
        act()
        taken.append((time.perf_counter_ns() - begun) / 1e3)
    return percentile(sorted(taken), 0.5)


def _report(setup: Setup, cases: list[Case], reads: dict[str, tuple[list[float], list[float]]]) -> Report:
    head = [
        "transport",
        "tensor",
        "message p50 µs",
        "shared p50 µs",
        "ratio",
        "message µs CPU",
        "shared µs CPU",
        "ratio",
    ]
    report = Report("shared_memory", "A tensor to the server and back, in a message and in shared memory", head)
    for message, shared in zip(cases[::2], cases[1::2], strict=True):
        cells = [message.transport, message.size]
        for ours, theirs in ((shared.latencies_us, message.latencies_us), (shared.cpu_us, message.cpu_us)):
            cells += [Spread.of(theirs).text(0), Spread.of(ours).text(0), shown(ratio_of(ours, theirs), 2)]
        report.rows.append(cells)
    for case in cases:
        rounds = {"p50_us": case.latencies_us, "server_cpu_us": case.cpu_us}
        what = {"transport": case.transport, "tensor": case.size, "form": case.form}
        report.measurements.append({**what, "rounds": rounds})
    for size, (mapped, read) in reads.items():
        report.measurements.append({"tensor": size, "copy_from_mapping_us": mapped, "pread_us": read})
        report.notes.append(
            f"one copy of {size} out of an object: from a mapping {Spread.of(mapped).text()} µs, "
            f"by pread {Spread.of(read).text()} µs"
        )
    report.notes.append(f"medians of {setup.rounds_or(ROUNDS)} rounds (least-most); one request at a time")
    return report
