"""Tensors between numpy and the wire: names of data types, bytes, and the two-way road.

Bytes are little-endian and row-major without padding; a BYTES element is its length in 4 bytes, then itself. Nothing
here knows a transport. FP16 is numpy's float16. BF16 has no numpy dtype: it goes out from an `ml_dtypes.bfloat16` array
or from `Tensor(bits, "BF16")` with the upper halves of the floats as uint16, and comes back as `bfloat16` if ml_dtypes
is installed, else as those uint16 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlserve.errors import InternalError, InvalidArgumentError
from mlserve.types import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlserve.types import Datatype, TensorLike

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES: dict[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
DATATYPES: frozenset[str] = frozenset({*_DTYPES, "BYTES"})
_BYTES_KINDS = "OSU"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class WireTensor:
    """A named tensor as it travels.

    Attributes:
        name: Input or output name.
        datatype: Name of the data type in the protocol.
        shape: Dimensions.
        data: The bytes; a view of the caller's array where no conversion was needed.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def encode(name: str, value: TensorLike, datatype: str | None = None) -> WireTensor:
    """Turns an array into bytes.

    Args:
        name: Input name.
        value: An array keeps its dtype. Lists and numbers take `datatype` where it is given.
        datatype: What the model expects, for values that have no dtype of their own.

    Cost: no copy for a contiguous little-endian array; one pass over BYTES elements.

    Raises:
        InvalidArgumentError: The dtype has no name in the protocol, or the values do not fit `datatype`.
    """
    known: str
    if isinstance(value, Tensor):
        array, known = value.data, value.datatype
        _check_carrier(name, array, known)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        known = datatype_of(name, array)
    else:
        array, known = _from_values(name, value, datatype)
    if known == "BYTES":
        return WireTensor(name, known, array.shape, join_bytes(name, array.ravel()))
    return WireTensor(name, known, array.shape, _buffer_of(array))


def decode(datatype: str, shape: Sequence[int], data: bytes | memoryview) -> NDArray[Any]:
    """Turns bytes into an array: a read-only view of `data`, except for BYTES (an object array of bytes).

    Raises:
        InternalError: The bytes do not make such a tensor, so the server's answer is broken.
    """
    dims = tuple(shape)
    if datatype == "BYTES":
        elements = split_bytes(data)
        if len(elements) != prod(dims):
            raise InternalError(f"answer of shape {list(dims)} holds {len(elements)} elements")
        array = np.empty(len(elements), dtype=np.object_)
        array[:] = elements
        return array.reshape(dims)
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InternalError(f"answer has the unknown datatype '{datatype}'")
    if any(dim < 0 for dim in dims) or prod(dims) * dtype.itemsize != len(data):
        raise InternalError(f"answer of datatype {datatype} and shape {list(dims)} holds {len(data)} bytes")
    if datatype == "BF16":
        dtype = _bfloat16() or dtype
    return np.frombuffer(data, dtype=dtype).reshape(dims)


def from_elements(datatype: str, shape: Sequence[int], elements: Iterable[Any]) -> NDArray[Any]:
    """Makes an array from Python values in row-major order, as JSON and typed contents carry them."""
    dims = tuple(shape)
    values = list(elements)
    if datatype == "BYTES":
        texts = [item.encode() if isinstance(item, str) else bytes(item) for item in values]
        array = np.empty(len(texts), dtype=np.object_)
        array[:] = texts
    elif datatype in _DTYPES and datatype != "BF16":
        array = np.array(values, dtype=_DTYPES[datatype])
    else:
        raise InternalError(f"answer has datatype '{datatype}', which cannot come as single values")
    if array.size != prod(dims):
        raise InternalError(f"answer of shape {list(dims)} holds {array.size} elements")
    return array.reshape(dims)


def join_bytes(name: str, elements: Iterable[Any]) -> bytes:
    """Writes BYTES elements: each its length in 4 bytes, then itself. `str` is written as UTF-8."""
    parts: list[bytes] = []
    for element in elements:
        if isinstance(element, str):
            raw = element.encode()
        elif isinstance(element, bytes | bytearray | memoryview):
            raw = bytes(element)
        else:
            raise InvalidArgumentError(
                f"input '{name}' has an element of type {type(element).__name__}; BYTES takes bytes and str"
            )
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def split_bytes(data: bytes | memoryview) -> list[bytes]:
    """Reads BYTES elements.

    Raises:
        InternalError: A length leads past the end.
    """
    view = memoryview(data)
    elements: list[bytes] = []
    at = 0
    while at < len(view):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(view, at)[0] if start <= len(view) else start
        if end > len(view):
            raise InternalError(f"answer's BYTES element at byte {at} leads past the end at {len(view)}")
        elements.append(bytes(view[start:end]))
        at = end
    return elements


def datatype_of(name: str, array: NDArray[Any]) -> Datatype:
    """The protocol's name of an array's dtype; `name` is for the error.

    Raises:
        InvalidArgumentError: It has none.
    """
    if array.dtype.kind in _BYTES_KINDS:
        return "BYTES"
    found = _NAMES.get(array.dtype.name)
    if found is None:
        allowed = ", ".join(_NAMES)
        raise InvalidArgumentError(
            f"input '{name}' has dtype {array.dtype.name}, which the protocol does not know; use one of {allowed}, "
            "or bytes and str"
        )
    return found


def _check_carrier(name: str, array: NDArray[Any], datatype: str) -> None:
    if datatype not in DATATYPES:
        raise InvalidArgumentError(f"input '{name}' has the unknown datatype '{datatype}'")
    own = datatype_of(name, array)
    if own != datatype and (own, datatype) != ("UINT16", "BF16"):
        raise InvalidArgumentError(f"input '{name}' has dtype {array.dtype.name}, which does not hold {datatype}")


def _from_values(name: str, value: object, datatype: str | None) -> tuple[NDArray[Any], str]:
    """Reads lists and numbers; what would lose its value on the way to `datatype` is refused."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidArgumentError(f"input '{name}' is not a regular array: {error}") from error
    if array.size == 0 and datatype in _DTYPES:
        return array.astype(_DTYPES[datatype]), datatype
    if datatype is None:
        return array, datatype_of(name, array)
    if datatype == "BF16":
        return bfloat16_bits(_cast(name, array, "FP32")), datatype
    if datatype == "BYTES":
        if array.dtype.kind not in _BYTES_KINDS and array.size:
            raise InvalidArgumentError(f"input '{name}' holds {array.dtype.name}, but the model expects BYTES")
        # A fixed-width text array cuts trailing NUL characters off; an object array keeps the elements as given.
        return np.asarray(value, dtype=np.object_), datatype
    return _cast(name, array, datatype), datatype


def _cast(name: str, array: NDArray[Any], datatype: str) -> NDArray[Any]:
    target = _DTYPES.get(datatype)
    if target is None:
        raise InvalidArgumentError(f"input '{name}' has the unknown datatype '{datatype}'")
    both_whole = array.dtype.kind in "iu" and target.kind in "iu"
    if both_whole:
        limits = np.iinfo(target)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidArgumentError(
                f"input '{name}' has values from {array.min()} to {array.max()}, outside of {datatype}"
            )
    elif array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, target, casting="same_kind"):
        raise InvalidArgumentError(f"input '{name}' holds {array.dtype.name}, but the model expects {datatype}")
    return array.astype(target)


def bfloat16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of floats, rounded to the nearest even as hardware does; NaN stays NaN."""
    bits = np.asarray(array, dtype="<f4").view("<u4")
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    quiet = ((bits >> 16) | 0x40).astype("<u2")
    return cast("NDArray[np.uint16]", np.where(np.isnan(array), quiet, rounded))


def _buffer_of(array: NDArray[Any]) -> memoryview:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False) if array.dtype.kind in "iuf" else array
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


@cache
def _bfloat16() -> np.dtype[Any] | None:
    try:
        from ml_dtypes import bfloat16  # noqa: PLC0415 -- optional, and only BF16 answers need it
    except ImportError:
        return None
    found: np.dtype[Any] = np.dtype(bfloat16)
    return found
