"""A transformer as PyTorch's exporter writes it is batched: every reshape goes by sizes that the graph computes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests import graphs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.server

WIDTH, HEADS, LONGEST = 8, 2, 512


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any, dtype: type = np.int64) -> str:
        self.constants.append(graphs.constant(f"c{len(self.constants)}", np.asarray(array, dtype)))
        return str(self.constants[-1].name)

    def weights(self, *shape: int) -> str:
        random = np.random.default_rng(len(self.constants))
        return self.constant(0.1 * random.standard_normal(shape), np.float32)

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(graphs.node(op_type, inputs, [name], **attributes))
        return name

    def size(self, tensor: str, axis: int) -> str:
        """One dimension of a tensor, as a list."""
        size = self.add("Gather", self.add("Shape", tensor), self.constant(axis), axis=0)
        return self.add("Unsqueeze", size, self.constant([0]))

    def buffer(self, values: Any) -> str:
        """The first columns of a constant, as many as `ids` has."""
        start, axis = self.constant([0]), self.constant([1])
        return self.add("Slice", self.constant(values), start, self.size("ids", 1), axis, self.constant([1]))

    def normalised(self, tensor: str) -> str:
        centred = self.add("Sub", tensor, self.add("ReduceMean", tensor, axes=[-1]))
        squares = self.add("Pow", centred, self.constant(2, np.float32))
        variance = self.add("Add", self.add("ReduceMean", squares, axes=[-1]), self.constant(1e-5, np.float32))
        return self.add("Mul", self.add("Div", centred, self.add("Sqrt", variance)), self.weights(WIDTH))

    def embedded(self) -> str:
        """Words, places and segments; the segments are a constant that is expanded to the batch's shape."""
        shape = self.add("Concat", self.size("ids", 0), self.size("ids", 1), axis=0)
        one = onnx.numpy_helper.from_array(np.array([1], np.int64))
        ones = self.add("ConstantOfShape", self.add("Shape", shape), value=one)
        is_open = self.add("Equal", shape, self.add("Mul", ones, self.constant(-1)))
        wanted = self.add("Where", is_open, ones, shape)
        segments = self.add("Expand", self.buffer(np.zeros((1, LONGEST))), wanted)
        words = self.add("Gather", self.weights(30, WIDTH), "ids")
        both = self.add("Add", words, self.add("Gather", self.weights(2, WIDTH), segments))
        places = self.buffer(np.arange(LONGEST).reshape(1, LONGEST))
        return self.normalised(self.add("Add", both, self.add("Gather", self.weights(LONGEST, WIDTH), places)))

    def heads(self, tensor: str) -> str:
        product = self.add("MatMul", tensor, self.weights(WIDTH, WIDTH))
        split = [self.constant([HEADS]), self.constant([WIDTH // HEADS])]
        shape = self.add("Concat", self.size(product, 0), self.size(product, 1), *split, axis=0)
        return self.add("Transpose", self.add("Reshape", product, shape), perm=[0, 2, 1, 3])

    def layer(self, tensor: str, mask: str) -> str:
        query, key, value = (self.heads(tensor) for _ in range(3))
        scores = self.add("MatMul", query, self.add("Transpose", key, perm=[0, 1, 3, 2]))
        attention = self.add("Softmax", self.add("Add", scores, mask), axis=-1)
        context = self.add("Transpose", self.add("MatMul", attention, value), perm=[0, 2, 1, 3])
        sizes = [self.size(context, 0), self.size(context, 1), self.constant([WIDTH])]
        joined = self.add("Reshape", context, self.add("Concat", *sizes, axis=0))
        return self.normalised(self.add("Add", tensor, self.add("MatMul", joined, self.weights(WIDTH, WIDTH))))

    def pooled(self, tensor: str) -> str:
        """The mean of the words that the mask has."""
        wide = self.add("Expand", self.add("Unsqueeze", "mask", self.constant([-1])), self.add("Shape", tensor))
        mask, axis = self.add("Cast", wide, to=onnx.TensorProto.FLOAT), self.constant([1])
        total = self.add("ReduceSum", self.add("Mul", tensor, mask), axis, keepdims=0)
        count = self.add("Clip", self.add("ReduceSum", mask, axis, keepdims=0), self.constant(1e-9, np.float32))
        return self.add("Div", total, count)

    def model(self, last: str) -> bytes:
        self.nodes.append(graphs.node("Identity", [last], ["y"]))
        inputs = [graphs.value(name, "INT64", ["batch", "sequence"]) for name in ("ids", "mask")]
        outputs = [graphs.value("y", "FP32", ["batch", WIDTH])]
        graph = onnx.helper.make_graph(self.nodes, "tests", inputs, outputs, self.constants)
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        return bytes(made.SerializeToString())


def transformer(axis: int) -> bytes:
    """Two layers; the mask is taken along `axis` of the batch: 1 for each row's own words."""
    graph = Graph()
    mask = graph.add("Cast", "mask", to=onnx.TensorProto.FLOAT)
    if axis == 0:
        mask = graph.add("ReduceMax", mask, axes=[0], keepdims=1)
    wide = graph.add("Unsqueeze", graph.add("Unsqueeze", mask, graph.constant([1])), graph.constant([2]))
    closed = graph.add("Sub", graph.constant(1, np.float32), wide)
    mask = graph.add("Mul", closed, graph.constant(-1e9, np.float32))
    last = graph.embedded()
    for _ in range(2):
        last = graph.layer(last, mask)
    return graph.model(graph.pooled(last))


def inspected(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    command = [sys.executable, "-m", "mlserve", "inspect", str(path), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def test_a_transformer_is_batched(tmp_path: Path) -> None:
    found = inspected(tmp_path / "model.onnx", transformer(axis=1))
    assert (found["batching"], found["batching_reason"]) == (True, None)


def test_a_mask_that_all_rows_share_is_found_in_it(tmp_path: Path) -> None:
    found = inspected(tmp_path / "model.onnx", transformer(axis=0))
    assert found["batching"] is False
    assert found["batching_reason"].startswith("ReduceMax reduces over the batch")
