"""Steps that compute: element by element, along axes, and as products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.random_graphs.graph import FLOAT, INT64, ROWS, Graph, UnfitError


def remainder(graph: Graph) -> str:
    return graph.add("Mod", [graph.pick(INT64), graph.constant(graph.random.choice([2, 3, 4, 5]))])


def compared(graph: Graph) -> str:
    same = graph.add("Equal", [graph.pick(INT64), graph.constant([graph.random.choice([0, 3, 17])])])
    return graph.add("Cast", [same], to=FLOAT)


def above(graph: Graph) -> str:
    more = graph.add("Greater", [graph.pick(FLOAT), graph.weights(1)])
    return graph.add("Cast", [more], to=graph.random.choice([FLOAT, INT64]))


def as_float(graph: Graph) -> str:
    return graph.add("Cast", [graph.pick(INT64)], to=FLOAT)


def as_integer(graph: Graph) -> str:
    limits = [graph.constant(0, np.float32), graph.constant(3, np.float32)]
    return graph.add("Cast", [graph.add("Clip", [graph.pick(FLOAT), *limits])], to=INT64)


def single(graph: Graph) -> str:
    op_type = graph.random.choice(
        ["Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Softplus", "Erf", "HardSigmoid", "Identity"]
    )
    return graph.add(op_type, [graph.pick(FLOAT)])


def pair(graph: Graph) -> str:
    element = graph.random.choice([FLOAT, INT64])
    op_type = graph.random.choice(["Add", "Mul", "Sub", "Max", "Min"])
    return graph.add(op_type, [graph.pick(element), graph.pick(element)])


def scaled(graph: Graph) -> str:
    """Times constants, of which there may be one for each index of an axis."""
    name = graph.pick(FLOAT)
    sizes = [1 if size % ROWS == 0 else graph.random.choice([1, size]) for size in graph.shape(name)]
    return graph.add(graph.random.choice(["Mul", "Add", "PRelu"]), [name, graph.weights(*sizes)])


def chosen(graph: Graph) -> str:
    condition = graph.add("Greater", [graph.pick(FLOAT), graph.weights(1)])
    return graph.add("Where", [condition, graph.pick(FLOAT), graph.pick(FLOAT)])


def reduced(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    kinds = ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSum", "ReduceLogSumExp"]
    op_type = graph.random.choice(kinds) if graph.tensors[name][0] == FLOAT else "ReduceMax"
    keeps = graph.random.randrange(2)
    if graph.is_likely(0.05):
        return graph.add(op_type, [name], keepdims=keeps)
    return graph.add_with_axes(op_type, name, [graph.axis(name)], 13 if op_type == "ReduceSum" else 18, keepdims=keeps)


def largest_place(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    op_type = graph.random.choice(["ArgMax", "ArgMin"])
    return graph.add(op_type, [name], axis=graph.axis(name), keepdims=graph.random.randrange(2))


def largest(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    count = graph.constant([graph.random.choice([1, 2])])
    return graph.random.choice(graph.add_several("TopK", [name, count], 2, axis=graph.axis(name)))


def softmax(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    return graph.add(graph.random.choice(["Softmax", "LogSoftmax", "Hardmax"]), [name], axis=graph.axis(name))


def running_sum(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    flags: dict[str, Any] = {"exclusive": graph.random.randrange(2), "reverse": graph.random.randrange(2)}
    op_type = "CumProd" if graph.opset >= 26 and graph.is_likely(0.3) else "CumSum"
    return graph.add(op_type, [name, graph.constant(graph.axis(name))], **flags)


def layer_norm(graph: Graph) -> str:
    """With a scale that is constant, or rows."""
    graph.is_there_since(17)
    name = graph.pick(FLOAT)
    size = graph.shape(name)[-1]
    scale = graph.pick(FLOAT) if graph.is_likely(0.3) else graph.weights(size if size % ROWS else 1)
    op_type = "RMSNormalization" if graph.opset >= 23 and graph.is_likely(0.4) else "LayerNormalization"
    return graph.add(op_type, [name, scale], axis=graph.random.choice([-1, -1, -2, 1]))


def length_norm(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    return graph.add("LpNormalization", [name], axis=graph.axis(name), p=graph.random.choice([1, 2]))


def mean_variance(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[3, 4])
    return graph.add("MeanVarianceNormalization", [name], axes=[abs(graph.axis(name)) % len(graph.shape(name))])


def matmul(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    if graph.is_likely(0.3):
        return graph.add("MatMul", [graph.weights(2, graph.shape(name)[-2]), name])
    return graph.add("MatMul", [name, graph.weights(graph.shape(name)[-1], 3)])


def matmul_of_rows(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[2, 3, 4])
    if graph.is_likely(0.5):
        return graph.add("MatMul", [name, graph.pick(FLOAT)])
    order = [*range(len(graph.shape(name)) - 2), len(graph.shape(name)) - 1, len(graph.shape(name)) - 2]
    return graph.add("MatMul", [name, graph.add("Transpose", [name], perm=order)])


def gemm(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[2])
    turned = graph.random.randrange(2)
    size = graph.shape(name)[0 if turned else 1]
    if size % ROWS == 0:
        return graph.add("Gemm", [name, graph.pick(FLOAT, rank=[2])], transA=turned, transB=graph.random.randrange(2))
    added = graph.pick(FLOAT, rank=[1, 2]) if graph.is_likely(0.3) else graph.weights(3)
    return graph.add("Gemm", [name, graph.weights(size, 3), added], transA=turned)


def einsum(graph: Graph) -> str:
    names = [graph.pick(FLOAT, rank=[2, 3]) for _ in range(graph.random.choice([1, 2]))]
    operands = ["abc"[: len(graph.shape(name))] for name in names]
    if graph.is_likely(0.4):
        operands[-1] = operands[-1][:-1] + "d"
    if graph.is_likely(0.2):
        operands[-1] = "".join(graph.random.sample(operands[-1], len(operands[-1])))
    if graph.is_likely(0.3):
        return graph.add("Einsum", names, equation=dotted(graph, operands))
    letters = sorted(set("".join(operands)))
    result = "".join(graph.random.sample(letters, graph.random.randrange(1, len(letters) + 1)))
    return graph.add("Einsum", names, equation=f"{','.join(operands)}->{result}")


def dotted(graph: Graph, operands: list[str]) -> str:
    """An equation in which dots stand for the first dimensions, or the last one."""
    cut = [f"...{letters[-1]}" if graph.is_likely(0.7) else f"{letters[0]}..." for letters in operands]
    letters = sorted(set("".join(cut)) - {"."})
    rest = "".join(graph.random.sample(letters, graph.random.randrange(len(letters) + 1)))
    return f"{','.join(cut)}->{graph.random.choice([f'...{rest}', f'{rest}...'])}"


def determinant(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[3, 4])
    if graph.shape(name)[-1] != graph.shape(name)[-2]:
        raise UnfitError
    return graph.add("Det", [name])


def loss(graph: Graph) -> str:
    scores, labels = graph.pick(FLOAT, rank=[2, 3]), graph.pick(INT64, rank=[1, 2])
    few = graph.add("Mod", [labels, graph.constant(2)])
    reduction = graph.random.choice(["none", "none", "mean"])
    return graph.add("SoftmaxCrossEntropyLoss", [scores, few], reduction=reduction)


def spectrum(graph: Graph) -> str:
    graph.is_there_since(17)
    name = graph.pick(FLOAT, rank=[2, 3])
    last = graph.add_with_axes("Unsqueeze", name, [len(graph.shape(name))], 13)
    axis = graph.random.randrange(len(graph.shape(name)))
    if graph.opset < 20:
        return graph.add("DFT", [last], axis=axis)
    return graph.add("DFT", [last, "", graph.constant(axis)])
