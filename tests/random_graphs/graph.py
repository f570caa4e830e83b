"""A graph of random operations under construction, for seven rows.

The same seed makes the same graph. Steps (`steps.py` and the files beside it) add an operation to tensors that are there;
what does not fit is taken back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
# While a graph is made there are so many rows: no other size is a multiple.
ROWS = 7
# What a model may take; `one` has a number for each row, `steps` has as many steps as its rows want.
INPUTS: dict[str, tuple[int, list[int]]] = {
    "x": (FLOAT, [ROWS, 4, 6]),
    "table": (FLOAT, [ROWS, 6]),
    "image": (FLOAT, [ROWS, 2, 4, 4]),
    "ids": (INT64, [ROWS, 5]),
    "words": (STRING, [ROWS, 3]),
    "one": (INT64, [ROWS]),
}
CHOICES = [
    ["x"],
    ["image"],
    ["ids"],
    ["words"],
    ["x", "ids"],
    ["x", "one"],
    ["x", "table"],
    ["x", "image"],
    ["image", "one"],
    ["table", "ids"],
    ["words", "table"],
    ["table", "one", "ids"],
]
# Versions of ONNX's operators at which some of them changed.
OPSETS = [12, 17, 17, 18, 23, 27]
MOST_ELEMENTS = 20_000
MOST_RANK = 5
MOST_STEPS = 20

Shape: TypeAlias = list[int]


class UnfitError(Exception):
    """The operation does not fit what is there."""


class Graph:
    """Nodes and constants, and what is known of each tensor: its type and its dimensions for `ROWS` rows."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- the same graphs every time
        self.noise = np.random.default_rng(seed)
        self.opset = self.random.choice(OPSETS)
        self.inputs = self.random.choice(CHOICES)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.functions: list[Any] = []
        self.tensors: dict[str, tuple[int, Shape]] = {name: INPUTS[name] for name in self.inputs}
        # Types and dimensions that inference does not know.
        self.declared: dict[str, tuple[int, Shape]] = {}
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"t{self.names}"

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        name, array = self.name(), np.asarray(value)
        if array.dtype.kind in "US":
            texts: Any = [str(text).encode() for text in array.ravel()]
            self.constants.append(helper.make_tensor(name, STRING, array.shape, texts))
        else:
            self.constants.append(numpy_helper.from_array(array.astype(dtype), name))
        return name

    def weights(self, *shape: int) -> str:
        """Numbers between -1 and 1; none where a dimension would have to be the number of rows."""
        if any(size % ROWS == 0 for size in shape):
            raise UnfitError
        return self.constant(self.noise.uniform(-1, 1, shape), np.float32)

    def add(self, op_type: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        return self.add_several(op_type, inputs, 1, domain, **attributes)[0]

    def add_several(
        self, op_type: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, domain=domain, **attributes))
        return names

    def add_with_axes(self, op_type: str, name: str, axes: list[int], since: int, **attributes: Any) -> str:
        """An operation that took its axes as an attribute before the operator set `since`, and as an input after."""
        if self.opset < since:
            return self.add(op_type, [name], axes=axes, **attributes)
        return self.add(op_type, [name, self.constant(axes)], **attributes)

    def is_there_since(self, opset: int) -> None:
        """**Errors:** the operator set is older."""
        if self.opset < opset:
            raise UnfitError

    def declare(self, name: str, shape: Shape, element: int = FLOAT) -> str:
        """Says what a tensor is like, where inference does not know the operation."""
        self.declared[name] = (element, shape)
        return name

    def pick(self, *types: int, rank: Sequence[int] = (1, 2, 3, 4, 5)) -> str:
        """A tensor of one of these types and ranks, often the last one."""
        found = [name for name, (element, shape) in self.tensors.items() if element in types and len(shape) in rank]
        if not found:
            raise UnfitError
        return found[-1] if self.random.random() < 0.6 else self.random.choice(found)

    def like(self, shape: Sequence[int | None], element: int = FLOAT) -> str:
        """A tensor of these dimensions; `None` is any."""
        fits = [
            name
            for name, (own, sizes) in self.tensors.items()
            if own == element
            and len(sizes) == len(shape)
            and all(size in (None, there) for size, there in zip(shape, sizes, strict=True))
        ]
        if not fits:
            raise UnfitError
        return self.random.choice(fits)

    def shape(self, name: str) -> Shape:
        return self.tensors[name][1]

    def axis(self, name: str) -> int:
        rank = len(self.shape(name))
        return self.random.randrange(-rank, rank)

    def is_likely(self, share: float) -> bool:
        return self.random.random() < share

    def step(self, steps: Sequence[Callable[[Graph], str]]) -> None:
        """One more operation; one that does not fit is taken back."""
        before = len(self.nodes), len(self.constants), len(self.functions)
        try:
            name = self.random.choice(steps)(self)
            self.tensors[name] = self.fitting(*(self.declared[name] if name in self.declared else self.inferred(name)))
        except Exception:  # noqa: BLE001 -- whatever is said of an operation that does not fit
            del self.nodes[before[0] :], self.constants[before[1] :], self.functions[before[2] :]

    def fitting(self, element: int, shape: Shape) -> tuple[int, Shape]:
        """**Errors:** nothing can be done with a tensor of this type and these dimensions, or it is too large."""
        is_small = len(shape) <= MOST_RANK and np.prod(shape) <= MOST_ELEMENTS
        if not shape or 0 in shape or not is_small or element not in (FLOAT, INT64):
            raise UnfitError
        return element, shape

    def inferred(self, name: str) -> tuple[int, Shape]:
        model = self.model([helper.make_empty_tensor_value_info(name)], ROWS)
        found = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph.output[0].type.tensor_type
        if not found.HasField("shape"):
            raise UnfitError
        return found.elem_type, [dimension.dim_value for dimension in found.shape.dim]

    def model(self, outputs: list[Any], rows: int | str) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, INPUTS[name][0], [rows, *INPUTS[name][1][1:]]) for name in self.inputs
        ]
        known = (
            []
            if isinstance(rows, str)
            else [
                helper.make_tensor_value_info(name, element, shape) for name, (element, shape) in self.declared.items()
            ]
        )
        graph = helper.make_graph(self.nodes, "tests", inputs, outputs, self.constants, value_info=known)
        opsets = [("", self.opset), ("ai.onnx.ml", 3), ("com.microsoft", 1), ("tests", 1)]
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
        return helper.make_model(graph, opset_imports=imports, functions=self.functions, ir_version=10)

    def finished(self) -> onnx.ModelProto | None:
        """A model with rows first; `None` if the last tensor cannot be cut into rows."""
        name, (element, shape) = list(self.tensors.items())[-1]
        if len(self.tensors) < len(self.inputs) + 2 or np.prod(shape) % ROWS:
            return None
        if shape[0] != ROWS:
            shape = [ROWS, int(np.prod(shape)) // ROWS]
            name = self.add("Reshape", [name, self.constant([-1, shape[1]])])
        output = self.add("Identity", [name])
        self.nodes = needed(self.nodes, output)
        sizes: list[int | str | None] = ["rows", *[None] * (len(shape) - 1)]
        return self.model([helper.make_tensor_value_info(output, element, sizes)], "rows")


def needed(nodes: list[Any], output: str) -> list[Any]:
    """The nodes that an output depends on: others would run, too, and could fail."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(read_by(node))
    return kept[::-1]


def read_by(node: Any) -> set[str]:
    """Names that a node and the graphs inside it read."""
    inside = (inner for attribute in node.attribute for inner in attribute.g.node)
    return set(node.input).union(*(read_by(inner) for inner in inside))


def made(seed: int, steps: Sequence[Callable[[Graph], str]]) -> onnx.ModelProto | None:
    """The graph of this seed, if it comes to one."""
    graph = Graph(seed)
    for _ in range(graph.random.randint(2, MOST_STEPS)):
        graph.step(steps)
    return graph.finished()
