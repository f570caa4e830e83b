"""The repository's index, loading and unloading, configuration and statistics, as foreign clients ask for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests import graphs
from tests.conformance.triton_clients import CLIENTS, MODULES, Asked, manage

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

Managed = Callable[..., Any]
X = np.ones((3, 8), np.float32)
BAD_REQUEST = {"400", "StatusCode.INVALID_ARGUMENT"}
NOT_FOUND = {"404", "StatusCode.NOT_FOUND"}
UNAVAILABLE = {"503", "StatusCode.UNAVAILABLE"}


def index_of(managed: Managed) -> dict[str, dict[str, str]]:
    """The index by name, over gRPC and HTTP alike."""
    found = managed("get_model_repository_index")
    models = found.get("models", []) if isinstance(found, dict) else found
    return {model["name"]: model for model in models}


def config_of(managed: Managed, model: str) -> dict[str, Any]:
    """A configuration; gRPC has it one level down."""
    found = managed("get_model_config", model)
    config: dict[str, Any] = found.get("config", found)
    return config


def infer(server: ServerProcess, model: str) -> Any:
    return CLIENTS["grpc"](server.grpc, Asked(model, {"x": X}, {"x": "FP32"})).arrays


def refused(managed: Managed, status: set[str], text: str, *call: Any, **named: Any) -> None:
    with pytest.raises(InferenceServerException, match=text) as caught:
        managed(*call, **named)
    assert caught.value.status() in status


# ---- configuration --------------------------------------------------------------------------------------------------


def test_the_configuration_tells_names_types_and_batching(managed: Managed) -> None:
    config = config_of(managed, "mlp")
    assert (config["name"], config["platform"], config["backend"]) == ("mlp", "onnxruntime_onnx", "onnxruntime")
    assert int(config["max_batch_size"]) > 0
    (tensor,) = config["input"]
    # gRPC's JSON form writes 64-bit numbers as strings; the batch dimension is left out.
    assert (tensor["name"], tensor["data_type"], [int(size) for size in tensor["dims"]]) == ("x", "TYPE_FP32", [8])
    assert [output["name"] for output in config["output"]] == ["probabilities"]
    assert "dynamic_batching" in config


def test_the_repositorys_configuration_is_in_force(managed: Managed) -> None:
    config = config_of(managed, "labelled")
    assert int(config["max_batch_size"]) == 8
    assert config["output"][0]["label_filename"] == "labels.txt"


@pytest.mark.parametrize("model", ["mlp", "labelled"])
def test_members_with_their_default_value_are_there_over_http(managed_server: ServerProcess, model: str) -> None:
    config = manage("http", managed_server.http, "get_model_config", model)
    assert (config["runtime"], config["model_warmup"], config["batch_input"]) == ("", [], [])
    assert (config["metric_tags"], config["input"][0]["format"]) == ({}, "FORMAT_NONE")


@pytest.mark.parametrize("arguments", [["nobody"], ["mlp", "9"]], ids=str)
def test_the_configuration_of_what_is_not_there_is_refused(managed: Managed, arguments: list[str]) -> None:
    refused(managed, NOT_FOUND, "Request for unknown model: '", "get_model_config", *arguments)


# ---- statistics -----------------------------------------------------------------------------------------------------


def statistics_of(managed: Managed, *arguments: str) -> dict[str, Any]:
    (found,) = managed("get_inference_statistics", *arguments)["model_stats"]
    return dict(found)


def test_what_was_asked_is_counted(managed: Managed, managed_server: ServerProcess) -> None:
    before = statistics_of(managed, "mlp")
    infer(managed_server, "mlp")
    after = statistics_of(managed, "mlp", "1")
    assert int(after["inference_count"]) == int(before.get("inference_count", 0)) + 3
    assert int(after["execution_count"]) == int(before.get("execution_count", 0)) + 1
    assert int(after["last_inference"]) > int(before.get("last_inference", 0))
    success, earlier = after["inference_stats"]["success"], before["inference_stats"]["success"]
    assert int(success["count"]) == int(earlier.get("count", 0)) + 1
    assert int(success["ns"]) > int(earlier.get("ns", 0))
    assert any(int(batch["batch_size"]) == 3 for batch in after["batch_stats"])


def test_every_version_is_listed_where_no_model_is_named(managed: Managed) -> None:
    found = managed("get_inference_statistics")["model_stats"]
    assert {"mlp", "identity_FP32", "labelled"} <= {model["name"] for model in found}


def test_all_members_are_there_over_http(managed_server: ServerProcess) -> None:
    (found,) = manage("http", managed_server.http, "get_inference_statistics", "identity_BYTES")["model_stats"]
    members = {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    assert set(found["inference_stats"]) == members
    assert all(set(duration) == {"count", "ns"} for duration in found["inference_stats"].values())
    assert (found["response_stats"], found["batch_stats"], found["last_inference"]) == ({}, [], 0)


def test_statistics_of_what_is_not_there_are_refused(managed: Managed) -> None:
    text = "requested model 'nobody' is not available"
    refused(managed, BAD_REQUEST, text, "get_inference_statistics", "nobody")


# ---- loading and unloading ------------------------------------------------------------------------------------------


def test_the_index_lists_what_is_ready(managed: Managed) -> None:
    found = index_of(managed)
    assert (found["mlp"]["version"], found["mlp"]["state"]) == ("1", "READY")
    assert "reason" not in found["mlp"] or not found["mlp"]["reason"]


def test_an_unloaded_model_is_gone_until_it_is_loaded_again(managed: Managed, managed_server: ServerProcess) -> None:
    expected = infer(managed_server, "mlp")["probabilities"]
    managed("unload_model", "mlp")
    try:
        assert managed("is_model_ready", "mlp") is False
        assert index_of(managed)["mlp"]["state"] == "UNAVAILABLE"
        assert index_of(managed)["mlp"]["reason"] == "unloaded"
        with pytest.raises(InferenceServerException, match="'mlp'"):
            infer(managed_server, "mlp")
        # What was unloaded on purpose is no reason to send nobody here.
        assert managed("is_server_ready") is True
    finally:
        managed("load_model", "mlp")
    assert managed("is_model_ready", "mlp") is True
    np.testing.assert_array_equal(infer(managed_server, "mlp")["probabilities"], expected)


def test_a_loaded_model_is_loaded_again(managed: Managed, managed_server: ServerProcess) -> None:
    managed("load_model", "mlp")
    assert infer(managed_server, "mlp")["probabilities"].shape == (3, 3)


def test_a_configuration_given_with_the_load_is_in_force(managed: Managed) -> None:
    managed("load_model", "mlp", config=json.dumps({"backend": "onnxruntime", "max_batch_size": 7}))
    try:
        assert int(config_of(managed, "mlp")["max_batch_size"]) == 7
    finally:
        managed("load_model", "mlp")
    assert int(config_of(managed, "mlp")["max_batch_size"]) != 7


def test_a_model_is_loaded_from_files_that_are_sent(managed: Managed, managed_server: ServerProcess) -> None:
    config = json.dumps({"backend": "onnxruntime"})
    managed("load_model", "sent", config=config, files={"file:1/model.onnx": graphs.mlp()})
    np.testing.assert_array_equal(
        infer(managed_server, "sent")["probabilities"], infer(managed_server, "mlp")["probabilities"]
    )
    managed("unload_model", "sent")
    assert managed("is_model_ready", "sent") is False


@pytest.mark.parametrize(
    ("model", "named", "status", "text"),
    [
        ("nobody", {}, NOT_FOUND, "failed to load 'nobody'"),
        ("mlp", {"config": "no json"}, BAD_REQUEST, "mlp"),
        ("mlp", {"config": '{"max_batch_size": "many"}'}, BAD_REQUEST, "max_batch_size"),
        ("sent", {"files": {"file:1/model.onnx": b"no model"}}, BAD_REQUEST, "config"),
        ("sent", {"config": "{}", "files": {"file:../model.onnx": b""}}, BAD_REQUEST, "file"),
        ("mlp", {"config": "{}", "files": {"file:1/model.onnx": b"no model"}}, BAD_REQUEST, "mlp"),
    ],
    ids=["unknown", "no-json", "wrong-type", "no-config", "outside", "no-model"],
)
def test_a_load_that_fails_changes_nothing(
    managed: Managed, managed_server: ServerProcess, model: str, named: dict[str, Any], status: set[str], text: str
) -> None:
    before = infer(managed_server, "mlp")["probabilities"]
    refused(managed, status, text, "load_model", model, **named)
    np.testing.assert_array_equal(infer(managed_server, "mlp")["probabilities"], before)
    assert managed("is_model_ready", "sent") is False


def test_unloading_what_is_not_there_is_no_error(managed: Managed) -> None:
    managed("unload_model", "nobody")
    managed("unload_model", "nobody", unload_dependents=True)


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
@pytest.mark.parametrize("client", list(MODULES))
def test_models_stay_where_the_mode_does_not_allow_it(example_server: ServerProcess, client: str, method: str) -> None:
    address = example_server.http if client.startswith("http") else example_server.grpc
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed") as caught:
        manage(client, address, method, "digits")
    assert caught.value.status() in UNAVAILABLE
    assert manage(client, address, "is_model_ready", "digits") is True
