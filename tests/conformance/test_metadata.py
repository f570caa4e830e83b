"""Health and metadata as foreign clients ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_clients import MODULES, manage
from tests.graphs import DATATYPES

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

Call = Callable[..., Any]


@pytest.fixture(params=list(MODULES))
def call(request: pytest.FixtureRequest, graph_server: ServerProcess) -> Call:
    """Calls one method of each client in turn: `call("is_model_ready", "mlp")`; gRPC answers as JSON."""
    name: str = request.param
    address = graph_server.http if name.startswith("http") else graph_server.grpc
    return lambda method, *args: manage(name, address, method, *args)


def test_the_server_is_live_and_ready(call: Call) -> None:
    assert call("is_server_live") is True
    assert call("is_server_ready") is True


@pytest.mark.parametrize(
    ("arguments", "expected"), [(["mlp"], True), (["mlp", "1"], True), (["mlp", "2"], False), (["nobody"], False)]
)
def test_a_model_is_ready_if_it_is_served(call: Call, arguments: list[str], expected: object) -> None:
    assert call("is_model_ready", *arguments) is expected


def test_the_server_tells_its_name_and_extensions(call: Call) -> None:
    found = call("get_server_metadata")
    assert found["name"] == "mlserve"
    assert "binary_tensor_data" in found["extensions"]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_model_tells_names_types_and_shapes(call: Call, datatype: str) -> None:
    found = call("get_model_metadata", f"concat_{datatype}")
    assert found["name"] == f"concat_{datatype}"
    assert found["versions"] == ["1"]
    assert found["platform"] == "onnxruntime_onnx"
    # gRPC's JSON form writes 64-bit numbers as strings.
    inputs = [(item["name"], item["datatype"], [int(size) for size in item["shape"]]) for item in found["inputs"]]
    assert inputs == [("a", datatype, [-1, -1]), ("b", datatype, [-1, -1])]
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"]) == ("y", datatype)


def test_a_scalar_has_an_empty_shape(call: Call) -> None:
    (found,) = call("get_model_metadata", "scalar")["inputs"]
    assert found.get("shape", []) == []


@pytest.mark.parametrize("arguments", [["nobody"], ["mlp", "9"]], ids=str)
def test_metadata_of_what_is_not_there_is_refused(call: Call, arguments: list[str]) -> None:
    with pytest.raises(InferenceServerException, match="Request for unknown model: '") as caught:
        call("get_model_metadata", *arguments)
    assert caught.value.status() in {"404", "StatusCode.NOT_FOUND"}
