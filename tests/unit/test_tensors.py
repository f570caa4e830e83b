"""Tensors to bytes and back: known bytes for each data type, and round trips of anything."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from mlserve.errors import InternalError, InvalidArgumentError
from mlserve.tensors import DATATYPES, bfloat16_bits, decode, encode, from_elements, join_bytes, split_bytes
from mlserve.types import Tensor

# One tensor of each data type with the bytes that the protocol prescribes.
KNOWN: dict[str, tuple[NDArray[Any], str]] = {
    "BOOL": (np.array([True, False]), "0100"),
    "UINT8": (np.array([1, 255], np.uint8), "01ff"),
    "UINT16": (np.array([1, 0xABCD], np.uint16), "0100cdab"),
    "UINT32": (np.array([1, 0x12345678], np.uint32), "0100000078563412"),
    "UINT64": (np.array([1], np.uint64), "0100000000000000"),
    "INT8": (np.array([-1, 2], np.int8), "ff02"),
    "INT16": (np.array([-2], np.int16), "feff"),
    "INT32": (np.array([-2], np.int32), "feffffff"),
    "INT64": (np.array([-2], np.int64), "feffffffffffffff"),
    "FP16": (np.array([1.0], np.float16), "003c"),
    "BF16": (np.array([1.0, -2.0], ml_dtypes.bfloat16), "803f00c0"),
    "FP32": (np.array([1.0], np.float32), "0000803f"),
    "FP64": (np.array([1.0], np.float64), "000000000000f03f"),
    "BYTES": (np.array([b"ab", b"", b"\0"], np.object_), "02000000616200000000" + "0100000000"),
}

numbers = npst.arrays(
    dtype=st.one_of(
        npst.boolean_dtypes(),
        npst.integer_dtypes(endianness="="),
        npst.unsigned_integer_dtypes(endianness="="),
        npst.floating_dtypes(sizes=(16, 32, 64), endianness="="),
    ),
    shape=npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def test_every_data_type_has_a_known_answer() -> None:
    assert set(KNOWN) == DATATYPES


@pytest.mark.parametrize("datatype", sorted(KNOWN))
def test_bytes_are_those_of_the_protocol(datatype: str) -> None:
    array, expected = KNOWN[datatype]
    tensor = encode("x", array)
    assert (tensor.datatype, tensor.shape) == (datatype, array.shape)
    assert bytes(tensor.data).hex() == expected
    np.testing.assert_array_equal(decode(datatype, array.shape, bytes.fromhex(expected)), array)


@given(numbers)
def test_numbers_come_back_bit_for_bit(array: NDArray[Any]) -> None:
    tensor = encode("x", array)
    found = decode(tensor.datatype, tensor.shape, bytes(tensor.data))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_elements_come_back(elements: list[bytes]) -> None:
    assert split_bytes(join_bytes("x", elements)) == elements


@given(st.binary(max_size=40))
def test_any_bytes_are_elements_or_an_error(data: bytes) -> None:
    try:
        elements = split_bytes(data)
    except InternalError:
        return
    assert join_bytes("x", elements) == data


@given(st.floats(width=32))
def test_bfloat16_rounds_as_the_library_does(value: float) -> None:
    array = np.array([value], np.float32)
    found = bfloat16_bits(array)
    if math.isnan(value):
        assert np.isnan(found.view(ml_dtypes.bfloat16)).all()
    else:
        assert found.tobytes() == array.astype(ml_dtypes.bfloat16).tobytes()


def test_text_becomes_utf8() -> None:
    tensor = encode("x", np.array(["ä", "b"]))
    assert bytes(tensor.data) == join_bytes("x", ["ä".encode(), b"b"])


def test_big_endian_arrays_are_turned() -> None:
    assert bytes(encode("x", np.array([1], ">i4")).data).hex() == "01000000"


def test_arrays_out_of_order_are_sent_row_by_row() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    tensor = encode("x", array)
    np.testing.assert_array_equal(decode("INT32", (3, 2), bytes(tensor.data)), array)


def test_a_contiguous_array_is_not_copied() -> None:
    array = np.zeros(4, np.float32)
    tensor = encode("x", array)
    array[0] = 1.0
    assert bytes(tensor.data)[:4].hex() == "0000803f"


def test_bits_can_carry_bfloat16() -> None:
    tensor = encode("x", Tensor(np.array([0x3F80], np.uint16), "BF16"))
    assert (tensor.datatype, bytes(tensor.data).hex()) == ("BF16", "803f")


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        ([1, 2], "FP32", np.array([1, 2], np.float32)),
        ([1, 2], "UINT8", np.array([1, 2], np.uint8)),
        ([0.5], "FP16", np.array([0.5], np.float16)),
        (3, "INT64", np.array(3, np.int64)),
        ([], "INT32", np.array([], np.int32)),
        ([True], "BOOL", np.array([True])),
        ([["a"], ["b\0"]], "BYTES", np.array([[b"a"], [b"b\0"]], np.object_)),
        ([1.0], "BF16", np.array([1.0], ml_dtypes.bfloat16)),
    ],
)
def test_plain_values_take_the_models_type(value: Any, datatype: str, expected: NDArray[Any]) -> None:
    tensor = encode("x", value, datatype)
    assert tensor.datatype == datatype
    np.testing.assert_array_equal(decode(datatype, tensor.shape, bytes(tensor.data)), expected)


@pytest.mark.parametrize(
    ("value", "datatype", "text"),
    [
        ([1.5], "INT64", "holds float64, but the model expects INT64"),
        ([300], "UINT8", "from 300 to 300, outside of UINT8"),
        ([-1], "UINT32", "from -1 to -1, outside of UINT32"),
        ([1], "BOOL", "holds int64, but the model expects BOOL"),
        ([1], "BYTES", "holds int64, but the model expects BYTES"),
        (["a"], "FP32", "holds <U1|holds str"),
        ([[1], [1, 2]], "FP32", "is not a regular array"),
        ([1], "FP8", "unknown datatype 'FP8'"),
        (np.array([1j]), None, "dtype complex128, which the protocol does not know"),
        (np.array([object()]), None, "element of type object; BYTES takes bytes and str"),
        (Tensor(np.zeros(1, np.float32), "INT32"), None, "dtype float32, which does not hold INT32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(value: Any, datatype: str | None, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"input 'x'.*({text})"):
        encode("x", value, datatype)


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [2], b"\0" * 7),
        ("FP32", [-1], b""),
        ("FP31", [1], b"\0"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BYTES", [1], b"\x02\0\0\0a"),
        ("BYTES", [1], b"\x02\0"),
    ],
)
def test_a_broken_answer_is_the_servers_fault(datatype: str, shape: list[int], data: bytes) -> None:
    with pytest.raises(InternalError):
        decode(datatype, shape, data)


def test_elements_of_json_become_arrays() -> None:
    np.testing.assert_array_equal(from_elements("INT8", [2, 1], [1, -1]), np.array([[1], [-1]], np.int8))
    assert from_elements("BYTES", [1], ["ä"]).tolist() == ["ä".encode()]
    with pytest.raises(InternalError, match="holds 2 elements"):
        from_elements("INT8", [3], [1, 2])
    with pytest.raises(InternalError, match="'BF16'"):
        from_elements("BF16", [1], [1.0])
