"""ModelConfig as foreign clients read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from tests.graphs import DATATYPES

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

# The configuration's words for the protocol's data types.
TYPES = {name: f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in DATATYPES}


def over_grpc(server: ServerProcess, *model: str) -> Any:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        return client.get_model_config(*model).config


def over_http(server: ServerProcess, *model: str) -> Any:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        return client.get_model_config(*model)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_inputs_and_outputs_leave_the_batch_dimension_out(graph_server: ServerProcess, datatype: str) -> None:
    metadata = tritonclient.http.InferenceServerClient(graph_server.http).get_model_metadata(f"concat_{datatype}")
    config = over_http(graph_server, f"concat_{datatype}")
    rows = config["max_batch_size"] > 0
    for role in ("input", "output"):
        described = [(item["name"], item["data_type"], item["dims"]) for item in config[role]]
        expected = [(item["name"], TYPES[item["datatype"]], item["shape"][rows:]) for item in metadata[f"{role}s"]]
        assert described == expected


def test_requests_share_runs_if_dynamic_batching_is_there(graph_server: ServerProcess) -> None:
    config = over_grpc(graph_server, "mlp")
    assert (config.name, config.platform, config.backend) == ("mlp", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 64
    assert config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled
    assert not config.response_cache.enable
    (group,) = config.instance_group
    assert group.count >= 1
    # A model without a dimension of rows runs each request by itself.
    fixed = over_grpc(graph_server, "scalar")
    assert fixed.max_batch_size == 0
    assert not fixed.HasField("dynamic_batching")


@pytest.mark.parametrize("model", ["mlp", "scalar", "concat_BYTES"])
def test_both_transports_tell_the_same(graph_server: ServerProcess, model: str) -> None:
    expected = over_grpc(graph_server, model)
    found = json_format.ParseDict(over_http(graph_server, model), type(expected)())
    assert found == expected


def test_members_with_their_default_are_in_the_json(graph_server: ServerProcess) -> None:
    config = over_http(graph_server, "mlp")
    assert config["input"][0]["format"] == "FORMAT_NONE"
    assert (config["runtime"], config["batch_input"], config["model_warmup"]) == ("", [], [])
    assert (config["metric_tags"], config["parameters"], config["cc_model_filenames"]) == ({}, {}, {})
    assert config["version_policy"] == {"latest": {"num_versions": 1}}


@pytest.mark.parametrize("ask", [over_grpc, over_http])
def test_a_configuration_of_what_is_not_there_is_refused(graph_server: ServerProcess, ask: Any) -> None:
    for model in (["nobody"], ["mlp", "9"]):
        with pytest.raises(InferenceServerException, match="Request for unknown model: '") as caught:
            ask(graph_server, *model)
        assert caught.value.status() in {"404", "StatusCode.NOT_FOUND"}
