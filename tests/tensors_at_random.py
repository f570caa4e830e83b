"""Seeded arrays of every data type, with the corners of each type among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graphs import DATATYPES

TEXTS = (b"", b"a", b"\x00", b"\xff\xfe", "größe".encode(), b"line\nbreak", b"x" * 300)


def array(rng: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """Any bits that the type can have; BF16 as the uint16 of its bits, BYTES as an object array of bytes."""
    size = int(np.prod(shape, dtype=np.int64))
    carrier = DATATYPES[datatype].carrier
    if datatype == "BYTES":
        texts = np.empty(size, np.object_)
        texts[:] = [TEXTS[index] for index in rng.integers(0, len(TEXTS), size)]
        return texts.reshape(shape)
    if datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(np.bool_)
    bits = rng.integers(0, 256, size * carrier.itemsize, dtype=np.uint8)
    return np.frombuffer(bits.tobytes(), carrier).reshape(shape)


def finite(rng: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """As `array`, but floats are ordinary numbers: for operations, and for clients that change the bits of NaN."""
    if datatype in {"FP16", "FP32", "FP64"}:
        return rng.standard_normal(shape).astype(DATATYPES[datatype].carrier)
    if datatype == "BF16":
        return (rng.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return array(rng, datatype, shape)
