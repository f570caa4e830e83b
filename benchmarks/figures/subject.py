"""The models that servers are measured with: their requests, and the right answers from ONNX Runtime in process."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.grpc import service_pb2

from figures import wire
from figures.setup import BenchmarkError

INFER = "/inference.GRPCInferenceService/ModelInfer"
SERVER_LIVE = "/inference.GRPCInferenceService/ServerLive"
SEED = 3
ANSWER_LIMIT_S = 10.0


@dataclass(frozen=True)
class Subject:
    """A model `input` FP32 [batch, inputs] → `output` FP32 [batch, outputs], and its file."""

    name: str
    path: Path
    inputs: int
    outputs: int

    def row(self) -> npt.NDArray[np.float32]:
        """The request that every client sends: one seeded row, rounded so that JSON carries it exactly."""
        values = np.random.default_rng(SEED).standard_normal((1, self.inputs))
        return np.round(values, 4).astype(np.float32)

    def expected(self) -> npt.NDArray[np.float32]:
        """The answer of ONNX Runtime in this process, one thread."""
        (answer,) = self.session().run(["output"], {"input": self.row()})
        return np.asarray(answer, np.float32)

    def session(self) -> onnxruntime.InferenceSession:
        """A session with one thread, as servers have here."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def grpc_message(self) -> bytes:
        """A serialised `ModelInferRequest` with a raw tensor."""
        request = service_pb2.ModelInferRequest(model_name=self.name, raw_input_contents=[self.row().tobytes()])
        request.inputs.add(name="input", datatype="FP32", shape=[1, self.inputs])
        return bytes(request.SerializeToString())

    def grpc_frame(self) -> bytes:
        """The body of the call, for h2load."""
        return wire.grpc_message(self.grpc_message())

    def http_path(self) -> str:
        """Where requests over HTTP go."""
        return f"/v2/models/{self.name}/infer"

    def json_body(self) -> bytes:
        """A request over HTTP, all JSON."""
        tensor = {"name": "input", "shape": [1, self.inputs], "datatype": "FP32"}
        data = [float(value) for value in np.round(self.row().astype(np.float64), 4).ravel()]
        return json.dumps({"inputs": [{**tensor, "data": data}]}).encode()

    def binary_body(self) -> tuple[bytes, dict[str, str]]:
        """A request over HTTP with binary tensors both ways, and its headers."""
        raw = self.row().tobytes()
        tensor = {"name": "input", "shape": [1, self.inputs], "datatype": "FP32"}
        head = json.dumps(
            {
                "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
                "outputs": [{"name": "output", "parameters": {"binary_data": True}}],
            }
        ).encode()
        return head + raw, {"Inference-Header-Content-Length": str(len(head))}


def check_answers(subject: Subject, grpc: str, http: str | None) -> None:
    """Asks through a foreign client on every transport, and through the bytes that h2load will send.

    Errors: an answer that differs in one bit from ONNX Runtime in process, a JSON one by more than its rounding.
    """
    row, expected = subject.row(), subject.expected()
    client = grpc_client.InferenceServerClient(grpc)
    tensor = grpc_client.InferInput("input", list(row.shape), "FP32")
    tensor.set_data_from_numpy(row)
    _same(client.infer(subject.name, [tensor]).as_numpy("output"), expected, "gRPC")
    client.close()
    connection = wire.Connection(grpc, ANSWER_LIMIT_S)
    if not is_answer(connection.data_of(INFER, subject.grpc_message()), expected):
        raise BenchmarkError(f"{subject.name}: the request that h2load sends gets a wrong answer")
    connection.close()
    if http is None:
        return
    web = http_client.InferenceServerClient(http)
    for binary in (True, False):
        sent = http_client.InferInput("input", list(row.shape), "FP32")
        sent.set_data_from_numpy(row, binary_data=binary)
        asked = http_client.InferRequestedOutput("output", binary_data=binary)
        found = web.infer(subject.name, [sent], outputs=[asked]).as_numpy("output")
        _same(np.asarray(found, np.float32), expected, "HTTP, binary" if binary else "HTTP, JSON")
    web.close()


def is_answer(data: bytes, expected: npt.NDArray[np.float32]) -> bool:
    """Whether the DATA of a gRPC answer holds exactly the expected values."""
    if len(data) < 5 or struct.unpack(">BI", data[:5]) != (0, len(data) - 5):
        return False
    answer = service_pb2.ModelInferResponse.FromString(data[5:])
    return list(answer.raw_output_contents) == [expected.tobytes()]


def _same(found: npt.NDArray[np.float32] | None, expected: npt.NDArray[np.float32], transport: str) -> None:
    if found is None or found.shape != expected.shape or found.tobytes() != expected.tobytes():
        raise BenchmarkError(f"wrong answer over {transport}: {found}, ONNX Runtime in process says {expected}")
