"""Whether the rows of a model influence each other, by runs.

A row is compared with itself among other neighbours at the same place of a batch of the same size, where not a bit may
differ, whatever the neighbours hold; and alone and at other places, where sums may be added up in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Rows: TypeAlias = dict[str, np.ndarray[Any, np.dtype[Any]]]
Outputs: TypeAlias = list[np.ndarray[Any, np.dtype[Any]]]

# How many rows a batch has: sizes that other dimensions have, too.
SIZES = (2, 3, 4, 6)
POOL = 8
# How many batches of each size are made of each kind of values.
DRAWS = 3
EXTREMES = [0.0, -0.0, 1e30, -1e30, 3e38, 1e-38, np.inf, -np.inf, np.nan]
TYPES: dict[str, Any] = {
    "tensor(string)": np.object_,
    "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Size of dimensions that are free and count no rows.
FREE = 5
WORDS = ["red", "green", "blue", "none", "", "red green", "1,2,,3"]


class Model:
    """A model in the runtime, as a server runs it, and the numbers that it knows."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = {found.name: (found.type, found.shape) for found in self.session.get_inputs()}
        self.known = known(onnx.load_from_string(content))

    def run(self, rows: Rows) -> Outputs:
        return [np.asarray(output) for output in self.session.run(None, rows)]

    def drawn(self, random: np.random.Generator, kind: str, count: int) -> Rows:
        """So many rows of values of a kind; free dimensions but the first are all of one size."""
        drawn: Rows = {}
        for name, (element, shape) in self.inputs.items():
            sizes = [count, *(size if isinstance(size, int) and size > 0 else FREE for size in shape[1:])]
            drawn[name] = self._values(random, kind, TYPES[element], sizes)
        return drawn

    def _values(self, random: np.random.Generator, kind: str, dtype: Any, sizes: list[int]) -> Any:
        if dtype == np.object_:
            return random.choice(np.array(WORDS, dtype=object), sizes)
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            few = random.integers(0, 2 if dtype == np.bool_ else 4, sizes)
            whole = [number for number in self.known if float(number).is_integer() and abs(number) < 1000]
            found = random.choice(np.array([0, 1, *whole], np.int64), sizes) if kind == "known" else few
            return found.astype(dtype)
        values = 3 * random.standard_normal(sizes)
        if kind == "known":
            known = random.choice(np.array([0.0, 0.5, *self.known]), sizes)
            values = np.where(random.random(sizes) < 0.5, known, values)
        if kind == "extreme":
            values = np.where(random.random(sizes) < 0.3, random.choice(np.array(EXTREMES), sizes), values)
        with np.errstate(over="ignore"):
            return values.astype(dtype)


def known(model: onnx.ModelProto) -> list[float]:
    """Numbers of small constants and lists."""
    found: set[float] = set()
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS):
                found.update(float(number) for number in value[:64])
    for tensor in tensors:
        if tensor.data_type != TensorProto.STRING and np.prod(tensor.dims) <= 64:
            found.update(float(number) for number in numpy_helper.to_array(tensor).ravel())
    return sorted(found)[:64]


def fault(model: Model, draws: int = DRAWS) -> str | None:
    """What shows that rows influence each other; `None`: nothing did."""
    random = np.random.default_rng(1)
    suspicions: dict[str, int] = {}
    for kind in ("ordinary", "known", "ordinary"):
        answered = list(answers(model, model.drawn(random, kind, POOL)))
        if len(answered) < 2:
            continue
        others = [rows for rows, _ in answers(model, model.drawn(random, "extreme", POOL))]
        for _ in range(draws):
            for size in SIZES:
                picked = [answered[at] for at in random.integers(len(answered), size=size)]
                found = among_others(model, random, picked, others)
                if found is not None and found.startswith("certain"):
                    return found
                if found is not None:
                    suspicions[found] = suspicions.get(found, 0) + 1
    # A rounding that tips a decision over is rare.
    return next((what for what, count in suspicions.items() if count > 1), None)


def answers(model: Model, rows: Rows) -> Iterator[tuple[Rows, Outputs]]:
    """Rows that the model answers alone, and the answers."""
    for at in range(POOL):
        row = {name: values[at : at + 1] for name, values in rows.items()}
        try:
            answer = model.run(row)
        except Exception:  # noqa: BLE001, S112 -- a value that the model refuses
            continue
        if all(output.ndim and output.shape[0] == 1 for output in answer):
            yield row, answer


def together(rows: list[Rows]) -> Rows:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def among_others(
    model: Model, random: np.random.Generator, picked: list[tuple[Rows, Outputs]], others: list[Rows]
) -> str | None:
    """Compares one batch with its rows alone, in another order, and beside others."""
    size = len(picked)
    try:
        batch = model.run(together([rows for rows, _ in picked]))
        order = random.permutation(size)
        permuted = model.run(together([picked[at][0] for at in order]))
        kept = int(random.integers(size))
        beside = [others[at] for at in random.integers(len(others), size=size)] if others else [picked[kept][0]] * size
        beside[kept] = picked[kept][0]
        replaced = model.run(together(beside))
    except Exception as error:  # noqa: BLE001 -- rows that are answered alone have to be answered together
        return f"certain: {size} rows fail: {str(error)[:200]}"
    for number, output in enumerate(batch):
        if output.shape[0] != size:
            return f"certain: output {number} has {output.shape[0]} rows for {size}"
        if not same(output[kept], replaced[number][kept]):
            return f"certain: output {number} of a row follows its neighbours, among {size}"
        for at in range(size):
            if output[at].shape != picked[at][1][number][0].shape or not near(output[at], picked[at][1][number][0]):
                return f"output {number} is another one among {size}"
        if not all(near(output[at], permuted[number][place]) for place, at in enumerate(order)):
            return f"output {number} is another one at another place, among {size}"
    return None


def same(one: Any, other: Any) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def near(one: Any, other: Any) -> bool:
    if one.dtype.kind != "f":
        return same(one, other)
    scale = float(np.max(np.abs(other), initial=0, where=np.isfinite(other)))
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4 * max(1.0, scale), equal_nan=True))
