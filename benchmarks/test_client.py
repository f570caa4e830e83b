"""What the Python client costs: its codec alone, and one request at a time over each transport.

Every case checks its answer before it is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from mlserve import Client
from mlserve.tensors import decode, encode

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from tests.conftest import ServerProcess

ROW = np.full((1, 8), 0.5, np.float32)
IMAGE = np.arange(3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224)
WORDS = np.array([f"word {number}" for number in range(1000)], np.object_)


@pytest.mark.parametrize("array", [ROW, IMAGE, WORDS], ids=["8 floats", "600 KB of floats", "1000 texts"])
def test_encode(benchmark: BenchmarkFixture, array: np.ndarray) -> None:
    tensor = benchmark(encode, "x", array)
    found = decode(tensor.datatype, tensor.shape, bytes(tensor.data))
    expected = [text.encode() for text in WORDS] if array is WORDS else array
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_one_request_at_a_time(benchmark: BenchmarkFixture, server: ServerProcess, protocol: str) -> None:
    url = server.grpc if protocol == "grpc" else f"http://{server.http}"
    with Client(url) as client:
        assert client.infer("tiny", {"input": ROW})["output"].sum() == pytest.approx(1.0)
        benchmark(client.infer, "tiny", {"input": ROW})
