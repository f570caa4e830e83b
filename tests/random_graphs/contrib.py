"""Steps of attention, quantised operations, tables, and ONNX Runtime's own operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.random_graphs.graph import FLOAT, INT64, ROWS, STRING, Graph, UnfitError

OWN = "com.microsoft"


def own(graph: Graph, op_type: str, inputs: list[str], shape: list[int], **attributes: Any) -> str:
    """One of ONNX Runtime's operators, with an output of these dimensions."""
    return graph.declare(graph.add(op_type, inputs, OWN, **attributes), shape)


def quantised(graph: Graph, name: str) -> list[str]:
    """A tensor as bytes, its scale and its zero point."""
    scale, zero = graph.constant(0.1, np.float32), graph.constant(3, np.uint8)
    return [graph.add("QuantizeLinear", [name, scale, zero]), scale, zero]


def restored(graph: Graph, name: str, shape: list[int], scale: str, zero: str) -> str:
    return graph.declare(graph.add("DequantizeLinear", [name, scale, zero]), shape)


def rounded(graph: Graph) -> str:
    """There and back, with one scale for all or one for each index of an axis."""
    name = graph.pick(FLOAT)
    shape = graph.shape(name)
    if graph.opset < 13 or graph.is_likely(0.5):
        found, *scales = quantised(graph, name)
        return restored(graph, found, shape, *scales)
    axis = graph.axis(name)
    scale = graph.constant(graph.noise.uniform(0.1, 1, [1 if shape[axis] % ROWS == 0 else shape[axis]]), np.float32)
    return graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [name, scale], axis=axis), scale], axis=axis)


def rounded_by_range(graph: Graph) -> str:
    parts = graph.add_several("DynamicQuantizeLinear", [graph.pick(FLOAT)], 3)
    return graph.add("DequantizeLinear", parts)


def quantised_single(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    found, scale, zero = quantised(graph, name)
    inputs = [found, scale, zero, scale, zero]
    if graph.is_likely(0.3):
        return restored(graph, graph.add("QLinearSigmoid", inputs, OWN), graph.shape(name), scale, zero)
    flags: dict[str, Any] = {"axis": graph.axis(name), "opset": graph.random.choice([12, 13])}
    return restored(graph, graph.add("QLinearSoftmax", inputs, OWN, **flags), graph.shape(name), scale, zero)


def quantised_list(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    shape, axis = list(graph.shape(name)), graph.axis(name)
    other = graph.like([None] * len(shape))
    shape[axis] += graph.shape(other)[axis]
    parts = quantised(graph, name)
    joined = graph.add("QLinearConcat", [*parts[1:], *parts, *quantised(graph, other)], OWN, axis=axis)
    return restored(graph, joined, shape, *parts[1:])


def quantised_pair(graph: Graph) -> str:
    name, other = graph.pick(FLOAT), graph.pick(FLOAT)
    shape = list(np.broadcast_shapes(tuple(graph.shape(name)), tuple(graph.shape(other))))
    parts = quantised(graph, name)
    op_type = graph.random.choice(["QLinearAdd", "QLinearMul"])
    return restored(graph, graph.add(op_type, [*parts, *quantised(graph, other), *parts[1:]], OWN), shape, *parts[1:])


def quantised_windows(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[3, 4])
    shape = graph.shape(name)
    if shape[1] % ROWS == 0:
        raise UnfitError
    found, scale, zero = quantised(graph, name)
    weights = graph.constant(graph.noise.integers(0, 9, [3, shape[1], *[1] * (len(shape) - 2)]), np.uint8)
    convolved = graph.add("QLinearConv", [found, scale, zero, weights, scale, zero, scale, zero])
    return restored(graph, convolved, [shape[0], 3, *shape[2:]], scale, zero)


def quantised_product(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    shape = graph.shape(name)
    if shape[-1] % ROWS == 0:
        raise UnfitError
    found, scale, zero = quantised(graph, name)
    weights = graph.constant(graph.noise.integers(0, 9, [shape[-1], 3]), np.uint8)
    if graph.is_likely(0.5):
        return graph.add("Cast", [graph.add("MatMulInteger", [found, weights, zero, zero])], to=FLOAT)
    product = graph.add("QLinearMatMul", [found, scale, zero, weights, scale, zero, scale, zero])
    return restored(graph, product, [*shape[:-1], 3], scale, zero)


def attention(graph: Graph) -> str:
    """ONNX's: heads first, with masks of any rank and past keys."""
    graph.is_there_since(23)
    query = graph.pick(FLOAT, rank=[4])
    other = query if graph.is_likely(0.7) else graph.like([None, graph.shape(query)[1], None, graph.shape(query)[3]])
    inputs = [query, other, other]
    if graph.is_likely(0.6):
        sizes = [1, graph.shape(query)[1], graph.shape(query)[2], graph.shape(other)[2]]
        rank = graph.random.choice([2, 3, 4])
        mask = graph.weights(*sizes[4 - rank :]) if graph.is_likely(0.3) else graph.pick(FLOAT, rank=[rank])
        inputs.append(mask)
    return graph.declare(graph.add("Attention", inputs, is_causal=graph.random.randrange(2)), graph.shape(query))


def linear_attention(graph: Graph) -> str:
    graph.is_there_since(27)
    query = graph.pick(FLOAT, rank=[3])
    shape = graph.shape(query)
    inputs = [query, graph.like(shape), graph.like(shape)]
    settings: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}
    return graph.declare(graph.add_several("LinearAttention", inputs, 2, **settings)[0], shape)


def turned(graph: Graph) -> str:
    """`RotaryEmbedding`, ONNX's or ONNX Runtime's, at places that are the rows' own or the same for all."""
    name = graph.pick(FLOAT, rank=[4])
    shape = graph.shape(name)
    if shape[3] % 2 or shape[1] % ROWS == 0:
        raise UnfitError
    tables = [graph.weights(9, shape[3] // 2) for _ in range(2)]
    kinds = [graph.constant([0]), graph.constant([[0] * shape[2]]) if shape[2] % ROWS else graph.constant([0])]
    places = graph.random.choice([*kinds, graph.pick(INT64, rank=[1, 2])])
    if graph.opset >= 23 and graph.is_likely(0.5):
        return graph.declare(graph.add("RotaryEmbedding", [name, *tables, places]), shape)
    return own(graph, "RotaryEmbedding", [name, places, *tables], shape)


def many_heads(graph: Graph) -> str:
    """`MultiHeadAttention` with masks, biases and past keys that are the rows' own or not."""
    query = graph.pick(FLOAT, rank=[3])
    batch, steps, width = graph.shape(query)
    other = query if graph.is_likely(0.6) else graph.like([None, None, width])
    length = graph.shape(other)[1]
    inputs = [query, other, other, "", "", "", "", ""]
    if graph.is_likely(0.2):
        inputs[3] = graph.weights(3 * width)
    if graph.is_likely(0.4):
        few = graph.add(
            "Mod",
            [graph.random.choice([graph.like([batch, length], INT64), graph.like([batch], INT64)]), graph.constant(2)],
        )
        inputs[4] = graph.add("Cast", [few], to=6)
    if graph.is_likely(0.4):
        inputs[5] = (
            graph.like([None, None, steps, length]) if graph.is_likely(0.5) else graph.weights(1, 2, steps, length)
        )
    if graph.is_likely(0.2):
        inputs[6] = inputs[7] = graph.like([None, 2, None, width // 2])
    return own(
        graph,
        "MultiHeadAttention",
        inputs,
        [batch, steps, width],
        num_heads=2,
        unidirectional=graph.random.randrange(2),
    )


def packed_attention(graph: Graph) -> str:
    """ONNX Runtime's `Attention`, with a mask of one or two dimensions."""
    name = graph.pick(FLOAT, rank=[3])
    batch, steps, width = graph.shape(name)
    inputs = [name, graph.weights(width, 12), graph.weights(12)]
    if graph.is_likely(0.6):
        mask = graph.pick(INT64, rank=[1, 2])
        inputs.append(graph.add("Cast", [graph.add("Mod", [mask, graph.constant(2)])], to=6))
    return own(graph, "Attention", inputs, [batch, steps, 4], num_heads=2)


def skip_norm(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[3])
    shape = graph.shape(name)
    skip = graph.pick(FLOAT, rank=[2, 3]) if graph.is_likely(0.8) else graph.weights(1, *shape[1:])
    if graph.is_likely(0.2):
        name, skip = skip, name
    return own(graph, "SkipLayerNormalization", [name, skip, graph.weights(shape[2])], shape)


def fused(graph: Graph) -> str:
    kind = graph.random.choice(["FusedMatMul", "BiasGelu", "MatMulNBits", "FusedGemm"])
    name = graph.pick(FLOAT, rank=[2, 3])
    shape = graph.shape(name)
    size = shape[-1]
    if kind == "BiasGelu":
        return own(graph, kind, [name, graph.weights(size)], shape)
    if kind == "MatMulNBits":
        weights = graph.constant(graph.noise.integers(0, 255, [3, 1, 8]), np.uint8)
        scales = graph.constant(graph.noise.uniform(0.1, 1, [3]), np.float32)
        return own(graph, kind, [name, weights, scales], [*shape[:-1], 3], K=size, N=3, bits=4, block_size=16)
    if kind == "FusedGemm":
        return own(graph, kind, [name, graph.weights(size, 3)], [shape[0], 3], activation="Relu")
    if graph.is_likely(0.5):
        return own(graph, kind, [name, graph.weights(3, size)], [*shape[:-1], 3], transB=1)
    return own(graph, kind, [name, graph.weights(shape[-2], 3)], [*shape[:-2], size, 3], transA=1)


def embedded_words(graph: Graph) -> str:
    """`EmbedLayerNormalization`: a batch of lists of numbers."""
    ids = graph.add("Cast", [graph.add("Mod", [graph.pick(INT64, rank=[2]), graph.constant(9)])], to=6)
    name = graph.like([ROWS, None], INT64)
    tables = [graph.weights(9, 4), graph.weights(9, 4), "", graph.weights(4), graph.weights(4)]
    outputs = graph.add_several("EmbedLayerNormalization", [ids, "", *tables], 2, OWN)
    return graph.declare(outputs[0], [*graph.shape(name), 4])


def scored(graph: Graph) -> str:
    """A linear model, a scaler, a normaliser or a tree of a table."""
    name = graph.pick(FLOAT, rank=[1, 2])
    shape = graph.shape(name)
    width = shape[-1]
    kind = graph.random.choice(["linear", "scaler", "normalizer", "tree", "features"])
    ml = "ai.onnx.ml"
    if kind == "normalizer":
        return graph.declare(graph.add("Normalizer", [name], ml, norm=graph.random.choice(["MAX", "L1", "L2"])), shape)
    if kind == "features":
        places = graph.pick(INT64) if graph.is_likely(0.4) else graph.constant([0, 1])
        return graph.add("ArrayFeatureExtractor", [name, places], ml)
    if width % ROWS == 0:
        raise UnfitError
    numbers = [float(number) for number in graph.noise.uniform(-1, 1, width)]
    if kind == "scaler":
        return graph.declare(graph.add("Scaler", [name], ml, offset=numbers, scale=numbers), shape)
    sizes = [shape[0] if len(shape) == 2 else 1, 1]
    if kind == "linear":
        found = graph.add("LinearRegressor", [name], ml, coefficients=numbers, intercepts=[0.5], targets=1)
        return graph.declare(found, sizes)
    tree: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.25, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.5, -2.0],
    }
    return graph.declare(graph.add("TreeEnsembleRegressor", [name], ml, n_targets=1, **tree), sizes)


def counted_words(graph: Graph) -> str:
    name = graph.pick(STRING)
    settings: dict[str, Any] = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": graph.random.choice([1, 2]),
        "max_skip_count": 0,
        "ngram_counts": [0, 2],
        "ngram_indexes": [0, 1, 2],
        "pool_strings": ["red", "green", "red", "green"],
    }
    return graph.declare(graph.add("TfIdfVectorizer", [name], **settings), [*graph.shape(name)[:-1], 3])
