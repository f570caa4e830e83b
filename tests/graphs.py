"""ONNX graphs that tests serve: one per data type, and one per way in which a model can be special.

Graphs are built when the tests run and are written into a temporary repository, `name/1/model.onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Recent enough for strings to be joined, old enough for every runtime that the package allows.
OPSET = 20
IR_VERSION = 10
Shape = Sequence[int | str]


@dataclass(frozen=True)
class Datatype:
    """A data type of the protocol: its number in ONNX, and the numpy dtype that holds its bytes."""

    name: str
    onnx: int
    carrier: np.dtype[Any]


DATATYPES = {
    found.name: found
    for found in [
        Datatype("BOOL", TensorProto.BOOL, np.dtype(np.bool_)),
        Datatype("UINT8", TensorProto.UINT8, np.dtype(np.uint8)),
        Datatype("UINT16", TensorProto.UINT16, np.dtype(np.uint16)),
        Datatype("UINT32", TensorProto.UINT32, np.dtype(np.uint32)),
        Datatype("UINT64", TensorProto.UINT64, np.dtype(np.uint64)),
        Datatype("INT8", TensorProto.INT8, np.dtype(np.int8)),
        Datatype("INT16", TensorProto.INT16, np.dtype(np.int16)),
        Datatype("INT32", TensorProto.INT32, np.dtype(np.int32)),
        Datatype("INT64", TensorProto.INT64, np.dtype(np.int64)),
        Datatype("FP16", TensorProto.FLOAT16, np.dtype(np.float16)),
        # Upper halves of floats: numpy has no such type.
        Datatype("BF16", TensorProto.BFLOAT16, np.dtype(np.uint16)),
        Datatype("FP32", TensorProto.FLOAT, np.dtype(np.float32)),
        Datatype("FP64", TensorProto.DOUBLE, np.dtype(np.float64)),
        Datatype("BYTES", TensorProto.STRING, np.dtype(np.object_)),
    ]
}
# Types for which ONNX Runtime adds on a CPU; the others are copied about.
ADDED = ("UINT8", "UINT32", "UINT64", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64")


def value(name: str, datatype: str, shape: Shape) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, DATATYPES[datatype].onnx, list(shape))


def constant(name: str, array: np.ndarray) -> Any:
    """An initialiser."""
    return numpy_helper.from_array(array, name)


def model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any] = ()) -> bytes:
    """A model file."""
    graph = helper.make_graph(list(nodes), "tests", list(inputs), list(outputs), list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """An operation."""
    return helper.make_node(op_type, list(inputs), list(outputs), **attributes)


def identity(datatype: str) -> bytes:
    """x → y, any number of rows and columns."""
    shape: Shape = ["rows", "columns"]
    return model([node("Identity", ["x"], ["y"])], [value("x", datatype, shape)], [value("y", datatype, shape)])


def concat(datatype: str) -> bytes:
    """Joins the columns of a and b."""
    inputs = [value("a", datatype, ["rows", "left"]), value("b", datatype, ["rows", "right"])]
    return model([node("Concat", ["a", "b"], ["y"], axis=1)], inputs, [value("y", datatype, ["rows", "both"])])


def add(datatype: str) -> bytes:
    """A + b."""
    shape: Shape = ["rows", 3]
    inputs = [value("a", datatype, shape), value("b", datatype, shape)]
    return model([node("Add", ["a", "b"], ["y"])], inputs, [value("y", datatype, shape)])


def mlp() -> bytes:
    """8 → 16 → 3 with rectifier and softmax: sums whose order could matter."""
    noise = np.random.default_rng(7)
    weights = [noise.standard_normal(shape).astype(np.float32) for shape in [(8, 16), (16,), (16, 3), (3,)]]
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w2", "b2"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"]),
    ]
    names = ["w1", "b1", "w2", "b2"]
    constants = [constant(name, array) for name, array in zip(names, weights, strict=True)]
    inputs = [value("x", "FP32", ["rows", 8])]
    return model(nodes, inputs, [value("probabilities", "FP32", ["rows", 3])], constants)


def ragged() -> bytes:
    """Rows of any width: their squares and the root of their sum, so that answers depend on the whole row."""
    nodes = [
        node("Mul", ["x", "x"], ["squares"]),
        node("ReduceSum", ["squares", "axes"], ["sum"], keepdims=0),
        node("Sqrt", ["sum"], ["norm"]),
    ]
    inputs = [value("x", "FP32", ["rows", "width"])]
    outputs = [value("squares", "FP32", ["rows", "width"]), value("norm", "FP32", ["rows"])]
    return model(nodes, inputs, outputs, [constant("axes", np.array([1]))])


def mixed() -> bytes:
    """Three inputs of different types and ranks to three outputs of different types and ranks."""
    nodes = [
        node("Add", ["x", "x"], ["doubled"]),
        node("ReduceSum", ["ids", "axes"], ["total"], keepdims=0),
        node("StringConcat", ["name", "mark"], ["marked"]),
    ]
    inputs = [
        value("x", "FP32", ["rows", 2, 2]),
        value("ids", "INT64", ["rows", 3]),
        value("name", "BYTES", ["rows", 1]),
    ]
    outputs = [
        value("doubled", "FP32", ["rows", 2, 2]),
        value("total", "INT64", ["rows"]),
        value("marked", "BYTES", ["rows", 1]),
    ]
    constants = [constant("axes", np.array([1])), constant("mark", np.array(["!"], np.object_))]
    return model(nodes, inputs, outputs, constants)


def scalar() -> bytes:
    """Rank 0 in and out."""
    return model([node("Neg", ["x"], ["y"])], [value("x", "FP32", [])], [value("y", "FP32", [])])


def fixed() -> bytes:
    """A shape without a free dimension."""
    return model([node("Neg", ["x"], ["y"])], [value("x", "FP32", [2, 3])], [value("y", "FP32", [2, 3])])


def lookup() -> bytes:
    """Rows of a table of ten: an index beyond is refused by the operation, not by the shape."""
    table = constant("table", np.arange(30, dtype=np.float32).reshape(10, 3))
    inputs = [value("ids", "INT64", ["rows", 2])]
    return model([node("Gather", ["table", "ids"], ["y"])], inputs, [value("y", "FP32", ["rows", 2, 3])], [table])


def parse() -> bytes:
    """Reads numbers from text: what is no number is refused by the operation."""
    nodes = [node("Cast", ["text"], ["number"], to=TensorProto.FLOAT)]
    return model(nodes, [value("text", "BYTES", ["rows", 1])], [value("number", "FP32", ["rows", 1])])


def loop(count: str, output: str) -> Any:
    """A loop of so many turns over one number; needs the constants `LOOP_CONSTANTS`."""
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ["state_in", "state_out"]]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ["go_in", "go_out"]]
    nodes = [node("Identity", ["go_in"], ["go_out"]), node("Cos", ["state_in"], ["state_out"])]
    body = helper.make_graph(nodes, "turn", [turn, go[0], state[0]], [go[1], state[1]])
    return node("Loop", [count, "yes", "start"], [output], body=body)


LOOP_CONSTANTS = (constant("yes", np.array(True)), constant("start", np.array([0.5], np.float32)))  # noqa: FBT003


def slow() -> bytes:
    """Runs as many turns of a loop as its input says, at most ten million: time that a test can ask for."""
    nodes = [node("Squeeze", ["turns"], ["asked"]), node("Min", ["asked", "most"], ["count"]), loop("count", "y")]
    constants = [*LOOP_CONSTANTS, constant("most", np.array(10_000_000))]
    return model(nodes, [value("turns", "INT64", [1])], [value("y", "FP32", [1])], constants)


def slow_starter(turns: int) -> bytes:
    """Adds a number to each row that takes so many turns to compute, in warm-up runs too."""
    # Behind an input, because the runtime computes constants when it loads them.
    nodes = [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Squeeze", ["shape"], ["rows_now"]),
        node("Max", ["rows_now", "turns"], ["count"]),
        loop("count", "number"),
        node("Add", ["x", "number"], ["y"]),
    ]
    shape: Shape = ["rows", 1]
    constants = [*LOOP_CONSTANTS, constant("turns", np.array(turns))]
    return model(nodes, [value("x", "FP32", shape)], [value("y", "FP32", shape)], constants)


def large() -> bytes:
    """Two outputs of as many floats as the input says: memory that a test can ask for."""
    nodes = [node("ConstantOfShape", ["count"], ["first"]), node("Neg", ["first"], ["second"])]
    outputs = [value("first", "FP32", ["count"]), value("second", "FP32", ["count"])]
    return model(nodes, [value("count", "INT64", [1])], outputs)


def centred() -> bytes:
    """Each row less the mean of all rows: rows that influence each other."""
    nodes = [node("ReduceMean", ["x", "axes"], ["mean"]), node("Sub", ["x", "mean"], ["y"])]
    inputs = [value("x", "FP32", ["rows", 4])]
    return model(nodes, inputs, [value("y", "FP32", ["rows", 4])], [constant("axes", np.array([0]))])


def sequence() -> bytes:
    """A sequence as output, which the protocol cannot carry."""
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return model([node("SplitToSequence", ["x"], ["y"])], [value("x", "FP32", ["rows", 4])], [output])


SPECIAL: dict[str, Callable[[], bytes]] = {
    "mlp": mlp,
    "ragged": ragged,
    "mixed": mixed,
    "scalar": scalar,
    "fixed": fixed,
    "lookup": lookup,
    "parse": parse,
    "slow": slow,
    "large": large,
    "centred": centred,
}


def times(factor: float, ballast: int = 0) -> bytes:
    """x → y = factor * x, so that an answer tells which file gave it; `ballast`: bytes of weights that change nothing."""
    weights = np.full((max(1, ballast // 4),), factor, np.float32)
    nodes = [
        # The largest of equal weights: the factor, which no optimisation can know before it has read them all.
        node("ReduceMax", ["weights"], ["factor"], keepdims=0),
        node("Mul", ["x", "factor"], ["y"]),
    ]
    shape: Shape = ["rows", 2]
    return model(nodes, [value("x", "FP32", shape)], [value("y", "FP32", shape)], [constant("weights", weights)])


def file_of(name: str) -> bytes:
    """The model file of one of the names of `NAMES`."""
    if name in SPECIAL:
        return SPECIAL[name]()
    shape, _, datatype = name.partition("_")
    return {"identity": identity, "concat": concat, "add": add}[shape](datatype)


NAMES = (
    *SPECIAL,
    *(f"identity_{name}" for name in DATATYPES),
    *(f"concat_{name}" for name in DATATYPES),
    *(f"add_{name}" for name in ADDED),
)


def write(folder: Path, name: str, file: bytes) -> Path:
    """Puts a model file where a repository has version 1 of `name`."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(file)
    return path


def write_all(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Writes a repository of these models."""
    for name in names:
        write(folder, name, file_of(name))
    return folder
