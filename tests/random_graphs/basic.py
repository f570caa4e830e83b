"""Steps that arrange, pick, join and reduce."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.random_graphs.graph import FLOAT, INT64, ROWS, STRING, Graph, UnfitError

ENDS = [2**31 - 1, 2**63 - 1, -1, 3]


def looked_up(graph: Graph) -> str:
    """Words or numbers become numbers; what the dictionary does not know becomes one."""
    name = graph.pick(INT64, STRING)
    kinds = [
        {"values_int64s": [1, 2, 3], "default_int64": 0},
        {"values_floats": [1.5, -2.0, 7.0], "default_float": 0.25},
    ]
    values = graph.random.choice(kinds)
    is_text = graph.tensors[name][0] == STRING
    keys = {"keys_strings": ["red", "green", "blue"]} if is_text else {"keys_int64s": [3, 17, 900]}
    return graph.add("LabelEncoder", [name], "ai.onnx.ml", **keys, **values)


def embedded(graph: Graph) -> str:
    table = graph.weights(graph.random.choice([4, 9, 50]), graph.random.choice([1, 3, 4]))
    return graph.add("Gather", [table, graph.pick(INT64)])


def gathered(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    places = graph.pick(INT64) if graph.is_likely(0.6) else graph.constant(graph.random.choice([[0], 0, [0, 1], [-1]]))
    return graph.add("Gather", [name, places], axis=graph.axis(name))


def gathered_elements(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    places = graph.pick(INT64, rank=[len(graph.shape(name))])
    return graph.add("GatherElements", [name, places], axis=graph.axis(name))


def gathered_slices(graph: Graph) -> str:
    name, places = graph.pick(FLOAT, INT64), graph.pick(INT64)
    shared = graph.random.randrange(min(len(graph.shape(name)), len(graph.shape(places))))
    return graph.add("GatherND", [name, places], batch_dims=shared)


def gathered_by_number(graph: Graph) -> str:
    """A number of each row picks from a table at the row's own place, or at the place that the number says."""
    name, numbers = graph.pick(FLOAT, rank=[2, 3, 4]), graph.pick(INT64, rank=[1])
    count = graph.add("Gather", [graph.add("Shape", [numbers]), graph.constant(0)])
    counted = graph.add("Range", [graph.constant(0), count, graph.constant(1)])
    parts = [counted, graph.add("Mod", [numbers, graph.constant(3)])]
    if graph.is_likely(0.3):
        parts.reverse()
    column = [graph.add_with_axes("Unsqueeze", part, [1], 13) for part in parts]
    return graph.add("GatherND", [name, graph.add("Concat", column, axis=1)])


def scattered(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    rank = [len(graph.shape(name))]
    return graph.add(
        "ScatterElements", [name, graph.pick(INT64, rank=rank), graph.pick(FLOAT, rank=rank)], axis=graph.axis(name)
    )


def scattered_slices(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    places = graph.constant([[0], [1]]) if graph.is_likely(0.5) else graph.pick(INT64, rank=[2])
    depth = 1 if places not in graph.tensors else graph.shape(places)[-1]
    lead = [2] if places not in graph.tensors else graph.shape(places)[:-1]
    return graph.add("ScatterND", [name, places, graph.like([*lead, *graph.shape(name)[depth:]])])


def swapped(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    rank = len(graph.shape(name))
    return graph.add("Transpose", [name], perm=graph.random.sample(range(rank), rank))


def reshaped(graph: Graph) -> str:
    """Other dimensions, one of them open or copied."""
    name = graph.pick(FLOAT, INT64)
    rest = int(np.prod(graph.shape(name)))
    sizes = [graph.random.choice([-1, 0]) if graph.is_likely(0.3) else -1]
    for _ in range(graph.random.randrange(3)):
        sizes.append(graph.random.choice([size for size in range(1, rest + 1) if rest % size == 0 and size % ROWS]))
        rest //= sizes[-1]
    if sizes[0] == 0 and graph.is_likely(0.7):
        sizes.append(-1)
    return graph.add("Reshape", [name, graph.constant(graph.random.sample(sizes, len(sizes)))])


def reshaped_by_count(graph: Graph) -> str:
    """Dimensions that are computed from another tensor's, as exporters write them."""
    name, other = graph.pick(FLOAT, INT64), graph.pick(FLOAT, INT64, STRING)
    size = graph.add("Gather", [graph.add("Shape", [other]), graph.constant([graph.axis(other)])])
    if graph.is_likely(0.3):
        size = graph.add("Cast", [size], to=graph.random.choice([TensorProto.INT32, TensorProto.UINT8, FLOAT]))
        size = graph.add("Cast", [size], to=INT64)
    if graph.is_likely(0.3):
        op_type = graph.random.choice(["Mul", "Div", "Add", "Sub"])
        size = graph.add(op_type, [size, graph.constant([graph.random.choice([1, 2, 3])])])
    parts = [size, graph.constant([-1])]
    graph.random.shuffle(parts)
    return graph.add("Reshape", [name, graph.add("Concat", parts, axis=0)])


def flat(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    return graph.add("Flatten", [name], axis=graph.random.randrange(len(graph.shape(name)) + 1))


def taller(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    return graph.add_with_axes("Unsqueeze", name, [graph.random.randrange(len(graph.shape(name)) + 1)], 13)


def squeezed(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    rank = len(graph.shape(name))
    ones = [axis for axis in range(-rank, rank) if graph.shape(name)[axis] == 1]
    if not ones or graph.is_likely(0.3):
        return graph.add("Squeeze", [name])
    return graph.add_with_axes(
        "Squeeze", name, graph.random.sample(ones, graph.random.choice([1, min(2, len(ones))])), 13
    )


def tiled(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    return graph.add("Tile", [name, graph.constant([graph.random.choice([1, 1, 2]) for _ in graph.shape(name)])])


def expanded(graph: Graph) -> str:
    """To the dimensions of another tensor."""
    name = graph.pick(FLOAT, INT64) if graph.is_likely(0.7) else graph.weights(graph.random.choice([1, 6]))
    return graph.add("Expand", [name, graph.add("Shape", [graph.pick(FLOAT, INT64)])])


def filled(graph: Graph) -> str:
    """A constant in the dimensions of another tensor."""
    return graph.add("ConstantOfShape", [graph.add("Shape", [graph.pick(FLOAT, INT64, STRING)])])


def counted(graph: Graph) -> str:
    """The number of rows, or of something else, as a value."""
    name = graph.pick(FLOAT)
    size = graph.add("Gather", [graph.add("Shape", [name]), graph.constant(graph.axis(name))])
    return graph.add("Mul", [name, graph.add("Cast", [size], to=FLOAT)])


def joined(graph: Graph) -> str:
    element = graph.random.choice([FLOAT, INT64])
    name = graph.pick(element)
    return graph.add("Concat", [name, graph.pick(element, rank=[len(graph.shape(name))])], axis=graph.axis(name))


def split(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    axis = graph.axis(name)
    size = graph.shape(name)[axis]
    if size < 2 or (size % ROWS == 0 and graph.is_likely(0.5)):
        raise UnfitError
    first = graph.random.randrange(1, size)
    if graph.opset < 13:
        parts = graph.add_several("Split", [name], 2, axis=axis, split=[first, size - first])
    else:
        parts = graph.add_several("Split", [name, graph.constant([first, size - first])], 2, axis=axis)
    return graph.random.choice(parts)


def cut(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    bounds = (
        graph.random.choice([0, 1, -1, -2]),
        graph.random.choice(ENDS),
        graph.axis(name),
        graph.random.choice([1, 1, 2]),
    )
    return graph.add("Slice", [name, *(graph.constant([number]) for number in bounds)])


def reversed_order(graph: Graph) -> str:
    name = graph.pick(FLOAT, INT64)
    return graph.add(
        "Slice", [name, *(graph.constant([number]) for number in (-1, -(2**63) + 1, graph.axis(name), -1))]
    )


def padded(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    pads = [0] * 2 * len(graph.shape(name))
    pads[graph.random.randrange(len(pads))] = graph.random.choice([1, 1, -1])
    mode = graph.random.choice(["constant", "constant", "reflect", "edge"])
    return graph.add("Pad", [name, graph.constant(pads), graph.constant(0.5, np.float32)], mode=mode)


def compressed(graph: Graph) -> str:
    name = graph.pick(FLOAT)
    axis = graph.axis(name)
    kept = [graph.is_likely(0.6) for _ in range(min(graph.shape(name)[axis], 3))]
    return graph.add("Compress", [name, graph.constant(kept, np.bool_)], axis=axis)


def one_hot(graph: Graph) -> str:
    name = graph.pick(INT64)
    inputs = [name, graph.constant(4), graph.constant([0, 1], np.float32)]
    return graph.add("OneHot", inputs, axis=graph.random.randrange(-1, len(graph.shape(name)) + 1))


def triangle(graph: Graph) -> str:
    graph.is_there_since(14)
    return graph.add("Trilu", [graph.pick(FLOAT, rank=[2, 3, 4])], upper=graph.random.randrange(2))


def reversed_steps(graph: Graph) -> str:
    name = graph.pick(FLOAT, rank=[2, 3])
    lengths = graph.add("Clip", [graph.like([ROWS], INT64), graph.constant(1), graph.constant(4)])
    batch = graph.random.randrange(2)
    return graph.add("ReverseSequence", [name, lengths], batch_axis=batch, time_axis=1 - batch)


def centred(graph: Graph) -> str:
    graph.is_there_since(18)
    name = graph.pick(FLOAT, INT64)
    axes = graph.random.sample(range(len(graph.shape(name))), graph.random.choice([1, min(2, len(graph.shape(name)))]))
    sizes = graph.constant([graph.random.choice([2, 5, 8]) for _ in axes])
    return graph.add("CenterCropPad", [name, sizes], axes=axes)


def cached(graph: Graph) -> str:
    graph.is_there_since(24)
    name = graph.pick(FLOAT, rank=[3, 4])
    shape, axis = graph.shape(name), graph.random.choice([1, 2, -2])
    update = [None if at == axis % len(shape) else size for at, size in enumerate(shape)]
    places = graph.add("Mod", [graph.like([None], INT64), graph.constant(4)])
    written = graph.add("TensorScatter", [name, graph.like(update), places], axis=axis, mode="circular")
    return graph.declare(written, shape)
