"""Makes the models that servers are compared with: `python benchmarks/make_models.py [FOLDER]`.

Weights are random but seeded, so every machine gets the same files. `tiny` and `tabular` are committed in
benchmarks/models; `resmlp` (29 MB) is made only into a folder named on the command line.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

COMMITTED = Path(__file__).resolve().parent / "models"
SEED = 7
OPSET = 17
IR_VERSION = 8
BIAS_SCALE = 0.01


@dataclass
class Network:
    """Layers one after the other, with weights drawn in that order."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def gemm(self, value: str, rows: int, columns: int, output: str) -> str:
        """A dense layer; weights N(0, 1)/sqrt(fan-in), bias N(0, 1)/100."""
        index = len(self.weights) // 2
        weight = self.random.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(rows))
        bias = self.random.standard_normal(columns, dtype=np.float32) * np.float32(BIAS_SCALE)
        self.weights += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        self.nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [output]))
        return output

    def apply(self, operation: str, values: list[str], output: str) -> str:
        """An operation without weights."""
        self.nodes.append(helper.make_node(operation, values, [output]))
        return output

    def save(self, folder: Path, name: str, inputs: int, outputs: int) -> None:
        """Writes version 1; `batch` is the only symbolic dimension."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", inputs])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", outputs])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "benchmarks/make_models.py"
        onnx.checker.check_model(model, full_check=True)
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        print(f"{path} {path.stat().st_size} bytes")


def make_tiny(folder: Path) -> None:
    """8 to 16 to 3: its run costs microseconds, so what is measured is the server."""
    network = Network()
    hidden = network.apply("Relu", [network.gemm("input", 8, 16, "sum0")], "hidden0")
    network.apply("Softmax", [network.gemm(hidden, 16, 3, "sum1")], "output")
    network.save(folder, "tiny", 8, 3)


def make_tabular(folder: Path) -> None:
    """64 to 256 to 256 to 1: the size of a usual tabular model."""
    network = Network()
    first = network.apply("Relu", [network.gemm("input", 64, 256, "sum0")], "hidden0")
    second = network.apply("Relu", [network.gemm(first, 256, 256, "sum1")], "hidden1")
    network.gemm(second, 256, 1, "output")
    network.save(folder, "tabular", 64, 1)


def make_resmlp(folder: Path) -> None:
    """512 to 2048 to 2048 to 1000 with a residual: heavy enough that batching pays sixfold."""
    network = Network()
    first = network.apply("Relu", [network.gemm("input", 512, 2048, "sum0")], "hidden0")
    second = network.apply("Relu", [network.gemm(first, 2048, 2048, "sum1")], "hidden1")
    joined = network.apply("Add", [first, second], "joined")
    network.gemm(joined, 2048, 1000, "output")
    network.save(folder, "resmlp", 512, 1000)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED
    make_tiny(folder)
    make_tabular(folder)
    if folder != COMMITTED:
        make_resmlp(folder)


if __name__ == "__main__":
    main()
