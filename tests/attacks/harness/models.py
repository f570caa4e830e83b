"""Models whose answers, or whose time, follow the values that they are asked with."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.graphs import Shape, constant, model, node, value

COUNT = ("count", "INT64", [1])


def ranged() -> bytes:
    """0 to n."""
    nodes = [node("Squeeze", ["count"], ["n"]), node("Range", ["zero", "n", "one"], ["y"])]
    constants = [constant("zero", np.array(0)), constant("one", np.array(1))]
    return model(nodes, [value(*COUNT)], [value("y", "INT64", ["n"])], constants)


def expanded() -> bytes:
    """One number, n times."""
    nodes = [node("Expand", ["seven", "count"], ["y"])]
    return model(nodes, [value(*COUNT)], [value("y", "FP32", ["n"])], [constant("seven", np.array([7], np.float32))])


def written() -> bytes:
    """A text of a hundred letters, n times: what it says lies in the heap, not in the arena."""
    nodes = [node("Expand", ["text", "count"], ["y"])]
    text = constant("text", np.array(["a" * 100], np.object_))
    return model(nodes, [value(*COUNT)], [value("y", "BYTES", ["n"])], [text])


def tiled() -> bytes:
    """Three numbers, n times."""
    nodes = [node("Tile", ["three", "count"], ["y"])]
    three = constant("three", np.array([1, 2, 3], np.float32))
    return model(nodes, [value(*COUNT)], [value("y", "FP32", ["n"])], [three])


def filled() -> bytes:
    """N zeros."""
    return model([node("ConstantOfShape", ["count"], ["y"])], [value(*COUNT)], [value("y", "FP32", ["n"])])


def padded() -> bytes:
    """One number with n zeros behind it."""
    nodes = [node("Concat", ["zero", "count"], ["pads"], axis=0), node("Pad", ["seven", "pads"], ["y"])]
    constants = [constant("zero", np.array([0])), constant("seven", np.array([7], np.float32))]
    return model(nodes, [value(*COUNT)], [value("y", "FP32", ["n"])], constants)


def one_hot() -> bytes:
    """A row of n columns for each index."""
    nodes = [node("OneHot", ["index", "count", "values"], ["y"])]
    constants = [constant("index", np.array([0])), constant("values", np.array([0, 1], np.float32))]
    return model(nodes, [value(*COUNT)], [value("y", "FP32", [1, "n"])], constants)


def collected() -> bytes:
    """What each of n turns of a loop saw: an output that grows with the turns."""
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ["go_in", "go_out"]]
    seen = helper.make_tensor_value_info("seen", TensorProto.FLOAT, [1024])
    nodes = [node("Identity", ["go_in"], ["go_out"]), node("Identity", ["block"], ["seen"])]
    body = helper.make_graph(nodes, "turn", [turn, go[0]], [go[1], seen])
    nodes = [node("Squeeze", ["count"], ["n"]), node("Loop", ["n", "yes"], ["y"], body=body)]
    constants = [constant("yes", np.array(True)), constant("block", np.zeros(1024, np.float32))]  # noqa: FBT003
    return model(nodes, [value(*COUNT)], [value("y", "FP32", ["n", 1024])], constants)


def wide() -> bytes:
    """Each row with each of its columns 64 times: output follows the request's own shape."""
    shape: Shape = ["rows", "width"]
    nodes = [node("Tile", ["x", "repeats"], ["y"])]
    repeats = constant("repeats", np.array([1, 64]))
    return model(nodes, [value("x", "FP32", shape)], [value("y", "FP32", ["rows", "wide"])], [repeats])


def endless() -> bytes:
    """As many turns of a loop as it is told, without a bound."""
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ["state_in", "state_out"]]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ["go_in", "go_out"]]
    nodes = [node("Identity", ["go_in"], ["go_out"]), node("Cos", ["state_in"], ["state_out"])]
    body = helper.make_graph(nodes, "turn", [turn, go[0], state[0]], [go[1], state[1]])
    outer = [node("Squeeze", ["count"], ["n"]), node("Loop", ["n", "yes", "start"], ["y"], body=body)]
    constants = [constant("yes", np.array(True)), constant("start", np.array([0.5], np.float32))]  # noqa: FBT003
    return model(outer, [value(*COUNT)], [value("y", "FP32", [1])], constants)


def heavy() -> bytes:
    """As many products of matrices as its input has rows, chosen by values: one operation that takes long."""
    nodes = [
        node("Concat", ["count", "count"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["square"]),
        node("MatMul", ["square", "square"], ["product"]),
        node("ReduceMax", ["product"], ["y"], keepdims=0),
    ]
    return model(nodes, [value(*COUNT)], [value("y", "FP32", [])])


BOMBS = {
    "ranged": ranged,
    "expanded": expanded,
    "written": written,
    "tiled": tiled,
    "filled": filled,
    "padded": padded,
    "one_hot": one_hot,
    "collected": collected,
}
