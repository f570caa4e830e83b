"""Makes models of the sizes and shapes that people serve: `python benchmarks/make_large_models.py FOLDER`.

For `benchmarks/run.py proof`, which measures their loads. Weights are random but seeded; about 1.3 GB are written, none
of it is committed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 11
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
IR_VERSION = 8


class Graph:
    """Nodes one after the other, with their weights."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Normal, by default over the square root of what one output sums."""
        fan_in = float(np.prod(shape[1:])) if len(shape) == 4 else float(shape[0])
        values = self.random.standard_normal(shape, dtype=np.float32)
        values *= np.float32(1 / np.sqrt(fan_in) if scale is None else scale)
        return self.constant(values)

    def constant(self, values: np.ndarray) -> str:
        """A weight with these values."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        """A list for a shape."""
        return self.constant(np.asarray(values, np.int64))

    def node(self, operation: str, *inputs: str, count: int = 1, **attributes: object) -> str:
        """The name of its first output; the others end with their number."""
        name = f"v{len(self.nodes)}"
        outputs = [name, *(f"{name}_{index}" for index in range(1, count))]
        self.nodes.append(helper.make_node(operation, list(inputs), outputs, **attributes))
        return name

    def dense(self, value: str, rows: int, columns: int) -> str:
        """A product and a bias."""
        return self.node(
            "Add", self.node("MatMul", value, self.weight(rows, columns)), self.weight(columns, scale=0.01)
        )

    def save(self, path: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        """Writes the model, its outputs being called as the values are."""
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
        onnx.save(model, path)


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """A float tensor of the graph."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def numbers(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """An integer tensor of the graph."""
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def convolution(graph: Graph, value: str, taken: int, given: int, size: int, stride: int = 1, group: int = 1) -> str:
    """A convolution with its bias, as exporters fold normalisation into it."""
    weight = graph.weight(given, taken // group, size, size)
    pads = [size // 2] * 4
    bias = graph.weight(given, scale=0.01)
    return graph.node("Conv", value, weight, bias, strides=[stride, stride], pads=pads, group=group)


def write_residual(path: Path) -> None:
    """ResNet-50 for images of 224 by 224."""
    graph = Graph()
    value = graph.node("Relu", convolution(graph, "image", 3, 64, 7, stride=2))
    value = graph.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    taken = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = graph.node("Relu", convolution(graph, value, taken, width, 1))
            inner = graph.node("Relu", convolution(graph, inner, width, width, 3, stride=stride))
            inner = convolution(graph, inner, width, 4 * width, 1)
            past = convolution(graph, value, taken, 4 * width, 1, stride=stride) if block == 0 else value
            value, taken = graph.node("Relu", graph.node("Add", inner, past)), 4 * width
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    scores = graph.node("Softmax", graph.dense(pooled, taken, 1000))
    graph.save(path, [floats("image", "n", 3, 224, 224)], [floats(scores, "n", 1000)])


def write_mobile(path: Path) -> None:
    """MobileNet v2 for images of 224 by 224."""
    graph = Graph()
    value, taken = graph.node("Clip", convolution(graph, "image", 3, 32, 3, stride=2)), 32
    for widen, given, blocks, first in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]:  # fmt: skip
        for block in range(blocks):
            stride, inner, width = first if block == 0 else 1, value, widen * taken
            if widen > 1:
                inner = graph.node("Relu", convolution(graph, inner, taken, width, 1))
            inner = graph.node("Relu", convolution(graph, inner, width, width, 3, stride=stride, group=width))
            inner = convolution(graph, inner, width, given, 1)
            value = graph.node("Add", inner, value) if stride == 1 and taken == given else inner
            taken = given
    value = graph.node("Relu", convolution(graph, value, taken, 1280, 1))
    scores = graph.dense(graph.node("Flatten", graph.node("GlobalAveragePool", value)), 1280, 1000)
    graph.save(path, [floats("image", "n", 3, 224, 224)], [floats(scores, "n", 1000)])


def attended(graph: Graph, value: str, width: int, heads: int, mask: str | None) -> str:
    """Self-attention as torch exports it: three products, heads split by reshapes."""
    split, joined = graph.integers(0, 0, heads, width // heads), graph.integers(0, 0, width)
    parts = [graph.node("Reshape", graph.dense(value, width, width), split) for _ in range(3)]
    query, past = (graph.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (parts[0], parts[2]))
    key = graph.node("Transpose", parts[1], perm=[0, 2, 3, 1])
    scale = graph.constant(np.asarray(np.sqrt(width / heads), np.float32))
    scores = graph.node("Div", graph.node("MatMul", query, key), scale)
    if mask is not None:
        scores = graph.node("Add", scores, mask)
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), past)
    mixed = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
    return graph.dense(mixed, width, width)


def normed(graph: Graph, value: str, width: int) -> str:
    """Layer normalisation."""
    scale = graph.constant(np.ones(width, np.float32))
    return graph.node("LayerNormalization", value, scale, graph.weight(width, scale=0.01), axis=-1)


def block(graph: Graph, value: str, width: int, heads: int, mask: str | None) -> str:
    """One layer of a transformer."""
    value = normed(graph, graph.node("Add", value, attended(graph, value, width, heads, mask)), width)
    inner = graph.dense(value, width, 4 * width)
    root = graph.constant(np.asarray(np.sqrt(2), np.float32))
    one, half = graph.constant(np.asarray(1, np.float32)), graph.constant(np.asarray(0.5, np.float32))
    gate = graph.node("Add", graph.node("Erf", graph.node("Div", inner, root)), one)
    inner = graph.node("Mul", graph.node("Mul", inner, gate), half)
    return normed(graph, graph.node("Add", value, graph.dense(inner, 4 * width, width)), width)


def write_language(path: Path, layers: int, width: int, heads: int, words: int) -> None:
    """BERT: words and a mask, of any length up to 512."""
    graph = Graph()
    zero, one = graph.integers(0), graph.integers(1)
    embedded = graph.node("Gather", graph.weight(words, width, scale=0.05), "input_ids")
    length = graph.node("Slice", graph.node("Shape", "input_ids"), one, graph.integers(2), zero)
    places = graph.node("Slice", graph.weight(1, 512, width, scale=0.05), zero, length, one)
    value = normed(graph, graph.node("Add", embedded, places), width)
    kept = graph.node("Cast", graph.node("Unsqueeze", "attention_mask", graph.integers(1, 2)), to=TensorProto.FLOAT)
    gone = graph.node("Sub", graph.constant(np.asarray(1, np.float32)), kept)
    mask = graph.node("Mul", gone, graph.constant(np.asarray(-10000, np.float32)))
    for _ in range(layers):
        value = block(graph, value, width, heads, mask)
    pooled = graph.node("Gather", value, graph.constant(np.asarray(0, np.int64)), axis=1)
    pooled = graph.node("Tanh", graph.dense(pooled, width, width))
    inputs = [numbers("input_ids", "batch", "length"), numbers("attention_mask", "batch", "length")]
    graph.save(path, inputs, [floats(value, "batch", "length", width), floats(pooled, "batch", width)])


def write_vision(path: Path) -> None:
    """ViT-B/16 for images of 224 by 224."""
    graph, width = Graph(), 768
    weight = graph.weight(width, 3, 16, 16)
    patches = graph.node("Conv", "image", weight, graph.weight(width, scale=0.01), strides=[16, 16])
    patches = graph.node("Transpose", graph.node("Reshape", patches, graph.integers(0, width, 196)), perm=[0, 2, 1])
    value = graph.node("Add", patches, graph.weight(1, 196, width, scale=0.05))
    for _ in range(12):
        value = block(graph, value, width, 12, None)
    scores = graph.dense(graph.node("ReduceMean", value, axes=[1], keepdims=0), width, 1000)
    graph.save(path, [floats("image", "n", 3, 224, 224)], [floats(scores, "n", 1000)])


def write_trees(path: Path, trees: int, depth: int) -> None:
    """A boosted ensemble of full trees over 100 features, as XGBoost's converter writes it."""
    graph, inner = Graph(), 2**depth - 1
    nodes = 2 ** (depth + 1) - 1
    place = np.arange(nodes)
    is_leaf = place >= inner
    left, right = np.where(is_leaf, 0, 2 * place + 1), np.where(is_leaf, 0, 2 * place + 2)
    modes = ["LEAF" if leaf else "BRANCH_LT" for leaf in is_leaf]
    thresholds = graph.random.normal(size=trees * nodes).astype(np.float32)
    attributes = {
        "nodes_treeids": np.repeat(np.arange(trees), nodes).tolist(),
        "nodes_nodeids": np.tile(place, trees).tolist(),
        "nodes_featureids": graph.random.integers(100, size=trees * nodes).tolist(),
        "nodes_values": np.where(np.tile(is_leaf, trees), 0, thresholds).astype(np.float32).tolist(),
        "nodes_modes": modes * trees,
        "nodes_truenodeids": np.tile(left, trees).tolist(),
        "nodes_falsenodeids": np.tile(right, trees).tolist(),
        "target_treeids": np.repeat(np.arange(trees), nodes - inner).tolist(),
        "target_nodeids": np.tile(place[is_leaf], trees).tolist(),
        "target_ids": [0] * (trees * (nodes - inner)),
        "target_weights": graph.random.normal(size=trees * (nodes - inner)).astype(np.float32).tolist(),
    }
    scores = graph.node("TreeEnsembleRegressor", "features", n_targets=1, domain="ai.onnx.ml", **attributes)
    graph.save(path, [floats("features", "n", 100)], [floats(scores, "n", 1)])


def write_ranker(path: Path) -> None:
    """Tables of users and things, numbers beside them, and a network on top."""
    graph, width = Graph(), 64
    parts = [graph.node("Gather", graph.weight(300_000, width, scale=0.1), name) for name in ("user", "thing")]
    parts.append(graph.node("Relu", graph.dense("features", 13, width)))
    value = graph.node("Concat", *parts, axis=1)
    for rows, columns in [(3 * width, 1024), (1024, 512), (512, 256)]:
        value = graph.node("Relu", graph.dense(value, rows, columns))
    score = graph.node("Sigmoid", graph.dense(value, 256, 1))
    inputs = [numbers("user", "n"), numbers("thing", "n"), floats("features", "n", 13)]
    graph.save(path, inputs, [floats(score, "n", 1)])


MODELS: dict[str, Callable[[Path], None]] = {
    "bert-base": lambda path: write_language(path, 12, 768, 12, 30522),
    "vit-b16": write_vision,
    "ranker": write_ranker,
    "resnet50": write_residual,
    "minilm": lambda path: write_language(path, 6, 384, 12, 30522),
    "trees": lambda path: write_trees(path, 2000, 8),
    "mobilenet": write_mobile,
}


def main() -> None:
    """Writes all into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in MODELS.items():
        write(folder / f"{name}.onnx")


if __name__ == "__main__":
    main()
