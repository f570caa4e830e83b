"""Steps of images, signals and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.random_graphs.graph import FLOAT, INT64, ROWS, Graph, UnfitError

SIGNALS = [3, 4]


def channels(graph: Graph, name: str) -> int:
    """**Errors:** the rows are the channels."""
    if graph.shape(name)[1] % ROWS == 0:
        raise UnfitError
    return graph.shape(name)[1]


def convolved(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=SIGNALS)
    windows = [graph.random.choice([1, 2]) for _ in graph.shape(name)[2:]]
    weights = graph.weights(3, channels(graph, name), *windows)
    return graph.add("Conv", [name, weights], strides=[graph.random.choice([1, 2]) for _ in windows])


def convolved_back(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=SIGNALS)
    windows = [2] * (len(graph.shape(name)) - 2)
    return graph.add("ConvTranspose", [name, graph.weights(channels(graph, name), 3, *windows)])


def convolved_by_offsets(graph: Graph) -> str:
    """`DeformConv`: offsets are the rows' own, or whatever has their dimensions."""
    graph.is_there_since(22)
    name = graph.pick(FLOAT, rank=[4])
    size = graph.shape(name)
    offsets = [size[0], 8, size[2] - 1, size[3] - 1]
    found = graph.like(offsets) if graph.is_likely(0.3) else tiled_to(graph, name)
    return graph.add("DeformConv", [name, graph.weights(2, channels(graph, name), 2, 2), found], kernel_shape=[2, 2])


def tiled_to(graph: Graph, name: str) -> str:
    """Offsets made of the image itself, for windows of two by two."""
    cut = graph.add("Slice", [name, graph.constant([0, 0]), graph.constant([-1, -1]), graph.constant([2, 3])])
    return graph.add("Tile", [cut, graph.constant([1, 8 // channels(graph, name), 1, 1])])


def pooled(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=SIGNALS)
    rank = len(graph.shape(name)) - 2
    settings = {"ceil_mode": 1} if graph.is_likely(0.3) else {"auto_pad": graph.random.choice(["SAME_UPPER", "VALID"])}
    strides = [graph.random.choice([1, 2]) for _ in range(rank)]
    return graph.add(
        graph.random.choice(["MaxPool", "AveragePool"]), [name], kernel_shape=[2] * rank, strides=strides, **settings
    )


def pooled_all(graph: Graph) -> str:
    return graph.add(graph.random.choice(["GlobalAveragePool", "GlobalMaxPool"]), [graph.pick(FLOAT, rank=SIGNALS)])


def resized(graph: Graph) -> str:
    """By factors or to sizes, of some axes in any order, with a neighbour's value or a blend of several."""
    name = graph.pick(FLOAT, rank=[2, 3, 4])
    rank = len(graph.shape(name))
    axes = list(range(rank))
    settings: dict[str, Any] = {"mode": graph.random.choice(["nearest", "nearest", "linear", "cubic"])}
    if graph.opset >= 18 and graph.is_likely(0.5):
        axes = graph.random.sample(axes, graph.random.randint(1, rank))
        settings["axes"] = axes
        settings["keep_aspect_ratio_policy"] = graph.random.choice(["stretch", "not_larger", "not_smaller"])
    region = ""
    if graph.opset >= 18 and graph.is_likely(0.2):
        settings["coordinate_transformation_mode"] = "tf_crop_and_resize"
        region = graph.constant([0.2] * len(axes) + [0.9] * len(axes), np.float32)
    if graph.is_likely(0.5):
        settings.pop("keep_aspect_ratio_policy", None)
        factors = [
            1 if graph.shape(name)[axis] == ROWS and graph.is_likely(0.8) else graph.random.choice([1, 1, 2])
            for axis in axes
        ]
        return graph.add("Resize", [name, region, graph.constant(factors, np.float32)], **settings)
    times = [1 if graph.shape(name)[axis] == ROWS else graph.random.choice([1, 2]) for axis in axes]
    sizes = graph.add("Gather", [graph.add("Shape", [name]), graph.constant(axes)])
    return graph.add("Resize", [name, region, "", graph.add("Mul", [sizes, graph.constant(times)])], **settings)


def sampled(graph: Graph) -> str:
    graph.is_there_since(16)
    name = graph.pick(FLOAT, rank=[4])
    return graph.add("GridSample", [name, graph.like([None, None, None, 2])])


def in_blocks(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[4])
    return graph.add(
        graph.random.choice(["SpaceToDepth", "DepthToSpace"]), [name], blocksize=graph.random.choice([1, 2])
    )


def instance_norm(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=SIGNALS)
    size = channels(graph, name)
    return graph.add("InstanceNormalization", [name, graph.weights(size), graph.weights(size)])


def batch_norm(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[2, 3, 4])
    size = channels(graph, name)
    variance = graph.constant(graph.noise.uniform(0.5, 1, [size]), np.float32)
    return graph.add("BatchNormalization", [name, *(graph.weights(size) for _ in range(3)), variance])


def local_norm(graph: Graph) -> str:
    return graph.add("LRN", [graph.pick(FLOAT, rank=[4])], size=3)


def recurrent(graph: Graph) -> str:
    """With time or rows first, lengths and a first state that are the rows' own or not."""
    name = graph.pick(FLOAT, rank=[3])
    steps, batch, width = graph.shape(name)
    op_type, gates = graph.random.choice([("GRU", 3), ("LSTM", 4), ("RNN", 1)])
    inputs = [name, graph.weights(1, 2 * gates, width), graph.weights(1, 2 * gates, 2), "", "", ""]
    if graph.is_likely(0.3):
        lengths = graph.add("Clip", [graph.like([batch], INT64), graph.constant(1), graph.constant(min(steps, 4))])
        inputs[4] = graph.add("Cast", [lengths], to=6)
    if graph.is_likely(0.3):
        inputs[5] = graph.like([1, batch, 2])
    direction = graph.random.choice(["forward", "reverse"])
    outputs = graph.add_several(op_type, inputs, 2, hidden_size=2, direction=direction)
    return graph.random.choice(outputs)


def causal(graph: Graph) -> str:
    graph.is_there_since(27)
    name = graph.pick(FLOAT, rank=[3])
    inputs = [name, graph.weights(channels(graph, name), 1, 3)]
    if graph.is_likely(0.3):
        inputs += ["", graph.like([None, graph.shape(name)[1], 2])]
    return graph.random.choice(graph.add_several("CausalConvWithState", inputs, 2))
