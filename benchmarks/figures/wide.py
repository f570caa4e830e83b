"""A model with a large answer, and clients that read theirs while others do not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as grpc_client
from onnx import TensorProto, helper, numpy_helper

from figures.cpu import TINY
from figures.servers import Server
from figures.setup import BenchmarkError
from figures.subject import Subject

OUTPUTS = 262_144
CALL_LIMIT_S = 5.0
PAUSE_S = 0.02


def make_wide(folder: Path) -> Subject:
    """A repository with `wide`, 1 to 262,144: an answer of 1 MiB for a row of 4 bytes; and `tiny` beside it."""
    weights = np.random.default_rng(7).standard_normal((1, OUTPUTS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["output"])],
        "wide",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "wide" / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    tiny = folder / "tiny" / "1" / "model.onnx"
    tiny.parent.mkdir(parents=True, exist_ok=True)
    tiny.write_bytes(TINY.path.read_bytes())
    return Subject("wide", path, 1, OUTPUTS)


@dataclass
class Polite:
    """What a client that reads its answers was given."""

    ok: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    longest_ms: float = 0.0

    def ask(self, client: grpc_client.InferenceServerClient, subject: Subject) -> None:
        """One request, counted; a wrong answer ends the scenario."""
        tensor = grpc_client.InferInput("input", [1, subject.inputs], "FP32")
        tensor.set_data_from_numpy(subject.row())
        begun = time.perf_counter()
        try:
            answer = client.infer(subject.name, [tensor], client_timeout=CALL_LIMIT_S).as_numpy("output")
        except grpc_client.InferenceServerException as error:
            status = str(error.status()).removeprefix("StatusCode.")
            self.refused[status] = self.refused.get(status, 0) + 1
            return
        if answer is None or answer.shape != (1, subject.outputs):
            raise BenchmarkError("a client that reads got a wrong answer")
        self.ok += 1
        self.longest_ms = max(self.longest_ms, (time.perf_counter() - begun) * 1e3)

    def text(self) -> str:
        """For the table."""
        refused = ", ".join(f"{count} {status}" for status, count in self.refused.items())
        return f"{self.ok} right, {refused or 'none'} refused, longest {self.longest_ms:.0f} ms"


def ask_politely(server: Server, asked: list[tuple[Subject, Polite]], is_enough: Callable[[], bool]) -> None:
    """One request after the other for each subject, until it is enough."""
    client = grpc_client.InferenceServerClient(server.grpc)
    while not is_enough():
        for subject, polite in asked:
            polite.ask(client, subject)
        time.sleep(PAUSE_S)
    client.close()
