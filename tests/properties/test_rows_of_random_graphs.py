"""Graphs of random operations: those that are batched answer each row as if it were alone.

The proof of batching has a rule for each operation; this looks for rules that are wrong together.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import shape_inference

from tests import graphs
from tests.raw_http import ask
from tests.reference import Reference

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = pytest.mark.server

# While a graph is made there are so many rows: no other size is a multiple.
ROWS = 7
INPUT = [ROWS, 4, 6]
GRAPHS = 60
MOST_ELEMENTS = 20_000
MOST_RANK = 5


class Graph:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- the same graphs every time
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.shapes: dict[str, list[int]] = {"x": INPUT}
        self.last = "x"

    def constant(self, array: Any, dtype: type = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(graphs.constant(name, np.asarray(array, dtype)))
        return name

    def numbers(self, *shape: int) -> str:
        values = [self.random.uniform(-1, 1) for _ in range(int(np.prod(shape)))]
        return self.constant(np.reshape(values, shape), np.float32)

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(graphs.node(op_type, inputs, [name], **attributes))
        return name

    def infer(self, name: str) -> list[int]:
        """The dimensions of a tensor for `ROWS` rows."""
        inputs, outputs = [graphs.value("x", "FP32", INPUT)], [onnx.helper.make_empty_tensor_value_info(name)]
        graph = onnx.helper.make_graph(self.nodes, "tests", inputs, outputs, self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        return [dimension.dim_value for dimension in inferred.graph.output[0].type.tensor_type.shape.dim]

    def step(self) -> None:
        """One more operation on the last tensor; one that does not fit is taken back."""
        before, name = (len(self.nodes), len(self.constants)), ""
        try:
            name = getattr(self, self.random.choice(STEPS))(self.last, self.shapes[self.last])
            shape = self.infer(name)
        except Exception:  # noqa: BLE001 -- whatever the checker says of an operation that does not fit
            shape = []
        if not shape or 0 in shape or len(shape) > MOST_RANK or np.prod(shape) > MOST_ELEMENTS:
            del self.nodes[before[0] :], self.constants[before[1] :]
            return
        self.last, self.shapes[name] = name, shape

    def axis(self, shape: list[int]) -> int:
        return self.random.randrange(-len(shape), len(shape))

    def transpose(self, last: str, shape: list[int]) -> str:
        return self.add("Transpose", [last], perm=self.random.sample(range(len(shape)), len(shape)))

    def flat(self, last: str, shape: list[int]) -> str:
        return self.add("Flatten", [last], axis=self.random.randrange(len(shape) + 1))

    def reshape(self, last: str, shape: list[int]) -> str:
        """Other dimensions, one of them open."""
        rest, sizes = int(np.prod(shape)), [-1]
        for _ in range(self.random.randrange(3)):
            sizes.append(self.random.choice([size for size in range(1, rest + 1) if rest % size == 0 and size % ROWS]))
            rest //= sizes[-1]
        return self.add("Reshape", [last, self.constant(self.random.sample(sizes, len(sizes)))])

    def counted(self, last: str, shape: list[int]) -> str:
        """Dimensions that are computed from the number of rows."""
        count = self.add("Gather", [self.add("Shape", ["x"]), self.constant([0])])
        rest = self.constant([int(np.prod(shape)) // ROWS])
        parts = self.random.sample([count, rest], 2)
        return self.add("Reshape", [last, self.add("Concat", parts, axis=0)])

    def reduce(self, last: str, shape: list[int]) -> str:
        op_type = self.random.choice(["ReduceMean", "ReduceMax"])
        return self.add(op_type, [last], axes=[self.axis(shape)], keepdims=self.random.randrange(2))

    def softmax(self, last: str, shape: list[int]) -> str:
        return self.add("Softmax", [last], axis=self.axis(shape))

    def scale(self, last: str, shape: list[int]) -> str:
        sizes = [1 if size % ROWS == 0 else self.random.choice([1, size]) for size in shape]
        return self.add("Mul", [last, self.numbers(*sizes)])

    def earlier(self, last: str, _shape: list[int]) -> str:
        return self.add("Add", [last, self.random.choice(list(self.shapes))])

    def matmul(self, last: str, shape: list[int]) -> str:
        return self.add("MatMul", [last, self.numbers(shape[-1], 3)])

    def from_left(self, last: str, shape: list[int]) -> str:
        return self.add("MatMul", [self.numbers(2, shape[-2]), last])

    def square(self, last: str, shape: list[int]) -> str:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        return self.add("MatMul", [last, self.add("Transpose", [last], perm=order)])

    def twice(self, last: str, shape: list[int]) -> str:
        return self.add("Concat", [last, last], axis=self.axis(shape))

    def first(self, last: str, shape: list[int]) -> str:
        return self.add("Gather", [last, self.constant(self.random.choice([[0], 0]))], axis=self.axis(shape))

    def cut(self, last: str, shape: list[int]) -> str:
        start, axis = self.random.randrange(2), self.axis(shape)
        return self.add("Slice", [last, *(self.constant([value]) for value in (start, 2**31 - 1, axis))])

    def taller(self, last: str, shape: list[int]) -> str:
        return self.add("Unsqueeze", [last, self.constant([self.random.randrange(len(shape) + 1)])])

    def tiled(self, last: str, shape: list[int]) -> str:
        return self.add("Tile", [last, self.constant([self.random.choice([1, 1, 2]) for _ in shape])])

    def sums(self, last: str, shape: list[int]) -> str:
        return self.add("CumSum", [last, self.constant(self.axis(shape))])

    def looked_up(self, last: str, shape: list[int]) -> str:
        largest = self.add("ArgMax", [last], axis=self.axis(shape), keepdims=self.random.randrange(2))
        return self.add("Gather", [self.numbers(50, 2), largest])

    def picked(self, last: str, shape: list[int]) -> str:
        axis = self.axis(shape)
        return self.add("GatherElements", [last, self.add("ArgMax", [last], axis=axis, keepdims=1)], axis=axis)

    def ones(self, last: str, _shape: list[int]) -> str:
        count = self.add("Gather", [self.add("Shape", ["x"]), self.constant([0])])
        size = self.add("Concat", [count, self.constant([6])], axis=0)
        return self.add("Add", [last, self.add("Expand", [self.numbers(1, 6), size])])

    def model(self) -> bytes | None:
        """The graph with rows of any number first; None if its last tensor cannot be cut into rows."""
        shape = self.shapes[self.last]
        if np.prod(shape) % ROWS:
            return None
        rows = self.add("Reshape", [self.last, self.constant([-1, int(np.prod(shape)) // ROWS])])
        self.nodes.append(graphs.node("Identity", [rows], ["y"]))
        inputs, outputs = [graphs.value("x", "FP32", ["n", 4, 6])], [graphs.value("y", "FP32", ["n", "width"])]
        graph = onnx.helper.make_graph(self.nodes, "tests", inputs, outputs, self.constants)
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        return bytes(made.SerializeToString())


STEPS = [name for name, made in vars(Graph).items() if callable(made) and made.__code__.co_argcount == 3][1:]


def write(folder: Path) -> list[str]:
    names: list[str] = []
    seed = 0
    while len(names) < GRAPHS:
        seed += 1
        graph = Graph(seed)
        for _ in range(graph.random.randint(2, 8)):
            graph.step()
        content = graph.model()
        if content is not None and len(graph.shapes) > 1:
            names.append(f"graph{seed}")
            path = folder / names[-1] / "1" / "model.onnx"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    return names


def rows_are_apart(reference: Reference) -> bool:
    random_numbers = np.random.default_rng(3)
    for count in (2, 5):
        x = 3 * random_numbers.standard_normal((count, 4, 6)).astype(np.float32)
        (batch,) = reference.run({"x": x}).values()
        alone = np.concatenate([next(iter(reference.run({"x": x[row : row + 1]}).values())) for row in range(count)])
        if batch.shape != alone.shape or not np.allclose(batch, alone, rtol=1e-3, atol=1e-4):
            return False
    return True


def test_graphs_that_are_batched_keep_rows_apart(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    names = write(folder)
    server = start_server(folder)
    found = {name: ask(server.http, "GET", f"/v2/models/{name}").json for name in names}
    # A graph that fits for seven rows may fit for no other number, and not load.
    batched = [name for name in names if found[name].get("properties", {}).get("batching") == "rows"]
    wrong = [name for name in batched if not rows_are_apart(Reference(folder / name / "1" / "model.onnx"))]
    assert wrong == []
    # Neither all nor none: otherwise this shows nothing.
    assert GRAPHS / 5 < len(batched) < GRAPHS * 4 / 5
