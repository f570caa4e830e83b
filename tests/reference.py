"""What ONNX Runtime itself answers: the oracle for every answer of a server, bit for bit on the same batch."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from onnx import TensorProto

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]


class Reference:
    """A model in this process, run as the server runs it: one thread, all optimisations."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {found.name: found.type for found in self._session.get_inputs()}
        self.outputs = [found.name for found in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Answers a batch. BF16 is its bits as uint16, BYTES an object array of bytes."""
        if any(kind == "tensor(bfloat16)" for kind in self.inputs.values()):
            return self._run_bits(inputs)
        given = {name: _as_text(array) for name, array in inputs.items()}
        found = self._session.run(self.outputs, given)
        return {name: _as_bytes(array) for name, array in zip(self.outputs, found, strict=True)}

    def _run_bits(self, inputs: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """As `run`, for models all of whose tensors are BF16, which numpy does not know."""
        make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
        values = {name: make(np.ascontiguousarray(array), TensorProto.BFLOAT16) for name, array in inputs.items()}
        found = self._session.run_with_ort_values(self.outputs, values)
        return {name: _bits(one) for name, one in zip(self.outputs, found, strict=True)}


def _bits(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    held: Any = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else []
    return np.array(held, np.uint16).reshape(shape)


def _as_text(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """The runtime's Python side takes text only: each byte becomes the character of its number."""
    if array.dtype != np.object_:
        return array
    texts = np.empty(array.size, np.object_)
    texts[:] = [bytes(item).decode("latin-1") for item in array.ravel()]
    return texts.reshape(array.shape)


def _as_bytes(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    found: np.ndarray[Any, np.dtype[Any]] = np.asarray(array)
    if found.dtype.kind not in "OU":
        return found
    texts = np.empty(found.size, np.object_)
    texts[:] = [str(item).encode("latin-1") for item in found.ravel()]
    return texts.reshape(found.shape)


def assert_same_bits(
    found: np.ndarray[Any, np.dtype[Any]], expected: np.ndarray[Any, np.dtype[Any]], what: str
) -> None:
    """Fails unless both have the same type, shape and bits; NaN equals a NaN of the same bits only."""
    assert found.dtype == expected.dtype, f"{what}: {found.dtype} for {expected.dtype}"
    assert found.shape == expected.shape, f"{what}: {found.shape} for {expected.shape}"
    if found.dtype == np.object_:
        assert found.tolist() == expected.tolist(), what
    else:
        assert found.tobytes() == expected.tobytes(), f"{what}: {found!r} for {expected!r}"


@dataclass(frozen=True)
class Place:
    """Where a request's rows ran: what a server in test mode tells."""

    batch: int
    rows: int
    offset: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Place:
        """Reads the parameters of an answer."""
        return cls(*(int(parameters[f"mlserve_batch{part}"]) for part in ("", "_rows", "_offset")))


@dataclass(frozen=True)
class Answered:
    """One request and its answer."""

    inputs: Arrays
    outputs: Arrays
    place: Place

    @property
    def rows(self) -> int:
        """Rows of the request."""
        return len(next(iter(self.inputs.values())))


def rebuilt(answers: Iterable[Answered]) -> dict[int, list[Answered]]:
    """Who shared a batch, in the batch's order. Fails if a batch has a gap: then somebody's answer is missing."""
    batches: dict[int, list[Answered]] = defaultdict(list)
    for answered in answers:
        batches[answered.place.batch].append(answered)
    for number, members in batches.items():
        members.sort(key=lambda answered: (answered.place.offset, answered.rows))
        at = 0
        for member in members:
            assert member.place.offset == at, f"batch {number}: a request at row {member.place.offset}, expected {at}"
            at += member.rows
        assert all(member.place.rows == at for member in members), f"batch {number} of {at} rows"
    return dict(batches)


def check_batches(reference: Reference, answers: Iterable[Answered]) -> int:
    """Holds every answer against the runtime on the same batch, bit for bit.

    Returns:
        How many batches were shared by several requests.
    """
    shared = 0
    for number, members in rebuilt(answers).items():
        names = list(members[0].inputs)
        joined = {name: np.concatenate([member.inputs[name] for member in members]) for name in names}
        expected = reference.run(joined)
        shared += len(members) > 1
        for member in members:
            rows = slice(member.place.offset, member.place.offset + member.rows)
            for name, found in member.outputs.items():
                assert_same_bits(found, expected[name][rows], f"batch {number}, {member.place}, output {name}")
    return shared
