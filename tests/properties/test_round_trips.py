"""Any tensor of any type and shape goes through a live server and comes back with the same bits, by every road."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlserve import Client, Tensor
from mlserve.errors import InvalidArgumentError
from tests.graphs import DATATYPES
from tests.reference import Reference, assert_same_bits
from tests.tensors_at_random import array

if TYPE_CHECKING:
    from mlserve import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

BOUNDED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Array = np.ndarray[Any, np.dtype[Any]]
Road = Callable[[str, dict[str, Any]], Any]

datatypes = st.sampled_from(sorted(DATATYPES))
shapes = st.tuples(st.integers(0, 130), st.integers(0, 40))
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def server(graph_folder: Path) -> Iterator[Server]:
    from mlserve import Server as Live  # noqa: PLC0415 -- needs the extension

    with Live(graph_folder) as found:
        yield found


@pytest.fixture(scope="module", params=["grpc", "http", "gzip", "inside"])
def road(request: pytest.FixtureRequest, server: Server) -> Iterator[Road]:
    """Ways to ask the same server: gRPC, HTTP, compressed gRPC, and a call within the process."""
    if request.param == "inside":
        yield server.infer
        return
    url = server.http_url if request.param == "http" else f"grpc://{server.grpc_url}"
    with Client(url, compression="gzip" if request.param == "gzip" else None) as client:
        yield client.infer


def sent(found: Array, datatype: str) -> Tensor | Array:
    return Tensor(found, "BF16") if datatype == "BF16" else found


def received(found: Array, datatype: str) -> Array:
    return found.view(np.uint16) if datatype == "BF16" and found.dtype == ml_dtypes.bfloat16 else found


@BOUNDED
@given(datatype=datatypes, shape=shapes, seed=seeds)
def test_any_tensor_comes_back_with_the_same_bits(road: Road, datatype: str, shape: tuple[int, int], seed: int) -> None:
    given_array = array(np.random.default_rng(seed), datatype, shape)
    result = road(f"identity_{datatype}", {"x": sent(given_array, datatype)})
    assert_same_bits(received(result["y"], datatype), given_array, datatype)


@BOUNDED
@given(datatype=datatypes, rows=st.integers(0, 70), left=st.integers(0, 9), right=st.integers(0, 9), seed=seeds)
def test_any_two_tensors_are_joined_as_numpy_joins_them(
    road: Road, datatype: str, rows: int, left: int, right: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = array(rng, datatype, (rows, left)), array(rng, datatype, (rows, right))
    result = road(f"concat_{datatype}", {"a": sent(a, datatype), "b": sent(b, datatype)})
    assert_same_bits(received(result["y"], datatype), np.concatenate([a, b], axis=1), datatype)


@BOUNDED
@given(rows=st.integers(1, 200), seed=seeds)
def test_any_number_of_rows_is_answered_as_by_the_runtime_within_last_bits(
    road: Road, graph_folder: Path, rows: int, seed: int
) -> None:
    """Many rows are cut into runs, so bits may differ from one run of all; each row's own meaning may not."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    expected = Reference(graph_folder / "mlp" / "1" / "model.onnx").run({"x": x})["probabilities"]
    np.testing.assert_allclose(road("mlp", {"x": x})["probabilities"], expected, rtol=1e-5, atol=1e-6)


@BOUNDED
@given(shape=st.lists(st.integers(0, 4), max_size=5), seed=seeds)
def test_any_shape_is_answered_or_refused_by_its_rank(road: Road, shape: list[int], seed: int) -> None:
    given_array = array(np.random.default_rng(seed), "INT32", tuple(shape))
    if len(shape) == 2:
        assert_same_bits(road("identity_INT32", {"x": given_array})["y"], given_array, "y")
        return
    with pytest.raises(InvalidArgumentError) as caught:
        road("identity_INT32", {"x": given_array})
    assert str(shape).replace(" ", "") in str(caught.value)
