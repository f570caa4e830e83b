"""The classification extension through every foreign client, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.conformance.triton_clients import Asked, Reply
from tests.tensors_at_random import finite

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

Ask = Callable[[Asked], Reply]
CLASSIFIED = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")


def text(score: Any) -> str:
    """What C++'s `std::to_string` makes of it."""
    if isinstance(score, np.floating):
        return f"{score:f}"
    return str(int(score))


def results(scores: np.ndarray[Any, np.dtype[Any]], most: int) -> list[bytes]:
    """The highest of one row, equal ones by rising index, what is no number last."""
    by_rank = sorted(range(scores.size), key=lambda index: (bool(np.isnan(scores[index])), _falling(scores[index])))
    return [f"{text(scores[index])}:{index}".encode() for index in by_rank[:most]]


def _falling(score: Any) -> Any:
    if isinstance(score, np.floating):
        return 0.0 if np.isnan(score) else -score
    return -int(score)


def check(reply: Reply, rows: np.ndarray[Any, np.dtype[Any]], most: int) -> None:
    """Holds the only output against what numpy makes of the rows."""
    (found,) = reply.arrays.values()
    expected = [results(row, most) for row in rows]
    assert found.shape == (rows.shape[0], min(most, rows.shape[1]))
    assert found.tolist() == expected


@pytest.mark.parametrize("most", [1, 3, 99])
@pytest.mark.parametrize("datatype", CLASSIFIED)
def test_every_type_is_ordered_and_printed_as_triton_does(ask: Ask, datatype: str, most: int) -> None:
    rows = finite(np.random.default_rng(most), datatype, (3, 8)).copy()
    # Equal values, so that their order shows.
    rows[1, 2:5] = rows[1, 1]
    asked = Asked(f"identity_{datatype}", {"x": rows}, {"x": datatype}, outputs=["y"], classes=most)
    check(ask(asked), rows, most)


def test_values_that_are_no_numbers_come_last(ask: Ask) -> None:
    rows = np.array([[np.nan, 1.0, -np.inf, np.inf, np.nan, -0.0, 0.0]], np.float32)
    asked = Asked("identity_FP32", {"x": rows}, {"x": "FP32"}, outputs=["y"], classes=7)
    check(ask(asked), rows, 7)


@pytest.mark.parametrize("ask", ["http", "http_aio"], indirect=True)
def test_json_carries_results_too(ask: Ask) -> None:
    rows = finite(np.random.default_rng(5), "FP32", (2, 4))
    asked = Asked("identity_FP32", {"x": rows}, {"x": "FP32"}, outputs=["y"], binary=False, classes=2)
    check(ask(asked), rows, 2)


def test_a_model_that_counts_no_rows_is_classified_whole(ask: Ask) -> None:
    values = np.array([[3, -1, 4], [1, -5, 9]], np.float32)
    reply = ask(Asked("fixed", {"x": values}, {"x": "FP32"}, outputs=["y"], classes=4))
    assert reply.arrays["y"].tolist() == results(-values.ravel(), 4)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_one_output_is_classified_and_another_is_not(graph_server: ServerProcess, transport: str) -> None:
    module = {"grpc": tritonclient.grpc, "http": tritonclient.http}[transport]
    sent: dict[str, tuple[np.ndarray[Any, np.dtype[Any]], str]] = {
        "x": (np.array([[[1, 4], [3, 2]], [[0, 0], [0, 8]]], np.float32), "FP32"),
        "ids": (np.array([[1, 2, 3], [4, 5, 6]], np.int64), "INT64"),
        "name": (np.array([["a"], ["b"]], np.object_), "BYTES"),
    }
    inputs = []
    for name, (array, datatype) in sent.items():
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [module.InferRequestedOutput("total"), module.InferRequestedOutput("doubled", class_count=2)]
    with module.InferenceServerClient(getattr(graph_server, transport)) as client:
        result = client.infer("mixed", inputs, outputs=outputs)
    assert result.as_numpy("total").tolist() == [6, 15]
    # All dimensions behind the rows count as one.
    assert result.as_numpy("doubled").tolist() == [[b"8.000000:1", b"6.000000:2"], [b"16.000000:3", b"0.000000:0"]]


def test_one_output_is_classified_and_others_are_not_asked_for(ask: Ask) -> None:
    values = np.array([[1, 2], [4, 3]], np.float32)
    reply = ask(Asked("ragged", {"x": values}, {"x": "FP32"}, outputs=["norm"], classes=5))
    # One number for each row.
    assert reply.arrays["norm"].tolist() == [[f"{np.sqrt(5):f}:0".encode()], [b"5.000000:0"]]


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)], ids=str)
def test_empty_tensors_have_no_results(ask: Ask, shape: tuple[int, int]) -> None:
    rows = np.zeros(shape, np.float32)
    reply = ask(Asked("identity_FP32", {"x": rows}, {"x": "FP32"}, outputs=["y"], classes=2))
    assert reply.arrays["y"].shape == (shape[0], min(2, shape[1]))


def test_a_request_in_parts_is_classified_like_one_in_one(ask: Ask) -> None:
    # More rows than one run takes.
    rows = np.random.default_rng(9).standard_normal((300, 5)).astype(np.float32)
    check(ask(Asked("identity_FP32", {"x": rows}, {"x": "FP32"}, outputs=["y"], classes=2)), rows, 2)
