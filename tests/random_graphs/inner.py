"""Steps with graphs inside, lists of tensors, and functions of the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.random_graphs.graph import FLOAT, Graph

FUNCTIONS = "tests"


def listed(graph: Graph) -> str:
    """Cut into a list, of which one element is taken, or all are put together again."""
    name = graph.pick(FLOAT)
    axis = graph.axis(name)
    elements = graph.add("SplitToSequence", [name, graph.constant(graph.random.choice([1, 2, 3]))], axis=axis)
    if graph.is_likely(0.4):
        return graph.add("ConcatFromSequence", [elements], axis=graph.random.choice([axis, graph.axis(name)]))
    return graph.add("SequenceAt", [elements, graph.constant(graph.random.choice([0, -1]))])


def listed_together(graph: Graph) -> str:
    one, other = graph.pick(FLOAT), graph.pick(FLOAT)
    elements = graph.add("SequenceConstruct", [one, other])
    if graph.is_likely(0.3):
        elements = graph.add("SequenceInsert", [elements, one, graph.constant(graph.random.choice([0, 1]))])
    if graph.is_likely(0.3):
        return graph.add("SequenceAt", [elements, graph.constant(graph.random.choice([0, 1]))])
    new = graph.random.randrange(2)
    axis = graph.random.randrange(len(graph.shape(one)) + new)
    return graph.add("ConcatFromSequence", [elements], axis=axis, new_axis=new)


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, None)


def scanned(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[2, 3])
    nodes = [helper.make_node("Add", ["a", "b"], ["o"]), helper.make_node("Tanh", ["o"], ["p"])]
    body = helper.make_graph(nodes, "body", [value("a"), value("b")], [value("o"), value("p")])
    state = graph.weights(1)
    if graph.is_likely(0.5):
        state = graph.add_with_axes("ReduceMean", name, [0], 18, keepdims=0)
    axes = [graph.random.randrange(len(graph.shape(name)))]
    settings: dict[str, Any] = {"body": body, "num_scan_inputs": 1, "scan_input_axes": axes}
    return graph.random.choice(graph.add_several("Scan", [state, name], 2, **settings))


def repeated(graph: Graph) -> str:
    """A loop that carries a tensor, and may read another one from outside."""
    name, other = graph.pick(FLOAT), graph.pick(FLOAT)
    works = [
        helper.make_node("Softmax", ["v"], ["w"], axis=graph.axis(name)),
        helper.make_node("Add", ["v", other], ["w"]),
        helper.make_node("Transpose", ["v"], ["w"]),
    ]
    nodes = [graph.random.choice(works), helper.make_node("Identity", ["go"], ["goes"])]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go, goes = (helper.make_tensor_value_info(flag, TensorProto.BOOL, []) for flag in ("go", "goes"))
    body = helper.make_graph(nodes, "body", [turn, go, value("v")], [goes, value("w")])
    count = graph.constant(graph.random.choice([1, 2]))
    looped = graph.add("Loop", [count, graph.constant(np.array(True), np.bool_), name], body=body)  # noqa: FBT003
    return graph.declare(looped, graph.shape(name))


def branched(graph: Graph) -> str:
    """By a value of all rows, or by a constant."""
    name, other = graph.pick(FLOAT), graph.pick(FLOAT)
    condition = graph.constant(np.array(True), np.bool_)  # noqa: FBT003
    if graph.is_likely(0.5):
        condition = graph.add("Greater", [graph.add("ReduceMax", [name], keepdims=0), graph.constant(0.5, np.float32)])
    yes, no = graph.name(), graph.name()
    branches: dict[str, Any] = {
        "then_branch": helper.make_graph([helper.make_node("Relu", [other], [yes])], yes, [], [value(yes)]),
        "else_branch": helper.make_graph([helper.make_node("Neg", [other], [no])], no, [], [value(no)]),
    }
    return graph.add("If", [condition], **branches)


def called(graph: Graph) -> str:
    """A function with an overload: which one it is says along which axis it works, or its caller does."""
    name = graph.pick(FLOAT)
    function = f"Function{graph.name()}"
    opsets = [helper.make_opsetid("", graph.opset)]
    axes = graph.random.sample(range(-len(graph.shape(name)), len(graph.shape(name))), 2)
    for overload, axis in zip(["first", "second"], axes, strict=True):
        node = helper.make_node("Softmax", ["a"], ["b"], axis=axis)
        graph.functions.append(
            helper.make_function(FUNCTIONS, function, ["a"], ["b"], [node], opsets, overload=overload)
        )
    call = helper.make_node(function, [name], [graph.name()], domain=FUNCTIONS)
    call.overload = graph.random.choice(["first", "second"])
    graph.nodes.append(call)
    return graph.declare(call.output[0], graph.shape(name))
