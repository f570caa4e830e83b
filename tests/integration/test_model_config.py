"""`config.pbtxt` on a running server: what it sets is in force, what is wrong about it hurts only its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from tests import graphs
from tests.conftest import eventually
from tests.raw_http import ask
from tests.repositories import answer, index, infer, load, post, put

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

SOUND = """
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { max_queue_size: 7 } }
instance_group [ { kind: KIND_CPU count: 3 } ]
version_policy: { all { } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


def configure(folder: Path, name: str, text: str) -> None:
    (folder / name / "config.pbtxt").write_text(text)


def config_of(server: ServerProcess, name: str) -> Any:
    found = ask(server.http, "GET", f"/v2/models/{name}/config")
    assert found.status == 200, found
    return json.loads(found.body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    put(repository, "plain", 1, 2)
    put(repository, "set", 1, 3)
    put(repository, "set", 2, 4)
    configure(repository, "set", SOUND)
    return repository


def test_what_it_sets_is_in_force(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder)
    config = config_of(server, "set")
    assert config["max_batch_size"] == 4
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
    assert config["instance_group"][0]["count"] == 3
    assert answer(server, "set") == (4, "2")
    assert answer(server, "set", 1) == (3, "1"), "all versions are served"
    assert config_of(server, "plain")["max_batch_size"] > 4


def test_a_setting_of_ones_own_wins(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--set", "models.set.max_batch_rows=16", "--set", "models.set.versions=1")
    config = config_of(server, "set")
    assert (config["max_batch_size"], config["instance_group"][0]["count"]) == (16, 3)
    assert answer(server, "set") == (3, "1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_batch_size: 4 }", "config.pbtxt of model 'set'"),
        ('input [ { name: "z" data_type: TYPE_FP32 dims: [ 2 ] } ]', "'z'"),
        ('input [ { name: "x" data_type: TYPE_INT64 dims: [ 2 ] } ]', "INT64"),
        ('input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ] max_batch_size: 4', "3"),
        ("sequence_batching { }", "sequence_batching"),
        ('backend: "python"', "python"),
        ('default_model_filename: "../../plain/1/model.onnx"', "default_model_filename"),
        ('default_model_filename: "other.onnx"', "other.onnx"),
        ("version_policy: { specific { versions: [ 9 ] } }", "9"),
        ('version_policy: { specific { versions: [ 1 ] } } input [ { name: "z" dims: [ 2 ] } ]', "'z'"),
    ],
)
def test_what_is_wrong_hurts_only_its_model(start_server: StartServer, folder: Path, text: str, reason: str) -> None:
    configure(folder, "set", text)
    server = start_server(folder)
    assert infer(server, "set").status == 503
    states = [line for (name, _), line in index(server).items() if name == "set"]
    assert all(state == "UNAVAILABLE" and reason in told for state, told in states), states
    assert str(folder) not in str(states)
    assert answer(server, "plain") == (2, "1")


def test_a_field_without_effect_is_told_in_the_log(start_server: StartServer, folder: Path) -> None:
    configure(folder, "set", SOUND + "response_cache { enable: true }")
    server = start_server(folder)
    assert answer(server, "set") == (4, "2")
    assert "response_cache.enable" in server.log.read_text()


def test_labels_and_warm_up_come_from_the_models_folder(start_server: StartServer, folder: Path) -> None:
    configure(
        folder,
        "set",
        """
        max_batch_size: 4
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
        model_warmup [ { name: "two rows" batch_size: 2 count: 3 inputs {
          key: "x" value: { data_type: TYPE_FP32 dims: [ 2 ] random_data: true } } } ]
        """,
    )
    (folder / "set" / "labels.txt").write_text("left\nright\n")
    server = start_server(folder)
    client = triton_grpc.InferenceServerClient(server.grpc)
    x = triton_grpc.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1.0, 2.0]], np.float32))
    found = client.infer("set", [x], outputs=[triton_grpc.InferRequestedOutput("y", class_count=1)]).as_numpy("y")
    assert found.tolist() == [[b"8.000000:1:right"]]


def test_a_warm_up_that_does_not_fit_fails_the_load(start_server: StartServer, folder: Path) -> None:
    sample = 'inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 5 ] zero_data: true } }'
    configure(folder, "set", f'model_warmup [ {{ name: "odd" batch_size: 1 {sample} }} ]')
    server = start_server(folder)
    assert any("odd" in reason for (name, _), (_, reason) in index(server).items() if name == "set")
    assert answer(server, "plain") == (2, "1")


def test_without_batches_requests_run_whole(start_server: StartServer, folder: Path) -> None:
    tensors = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]'
    tensors += ' output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]'
    configure(folder, "set", f"max_batch_size: 0 {tensors}")
    server = start_server(folder, "--report-batches")
    config = config_of(server, "set")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, [-1, 2])
    assert "dynamic_batching" not in config
    assert infer(server, "set").status == 200


def test_a_changed_configuration_is_taken_at_the_next_load(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--model-control-mode", "explicit", "--load-models", "set")
    configure(folder, "set", SOUND.replace("count: 3", "count: 1"))
    assert load(server, "set").status == 200
    assert config_of(server, "set")["instance_group"][0]["count"] == 1
    configure(folder, "set", "nonsense")
    assert load(server, "set").status == 500
    assert answer(server, "set") == (4, "2")
    override = json.dumps({"max_batch_size": 8, "versionPolicy": {"specific": {"versions": ["1"]}}})
    assert load(server, "set", config=override).status == 200
    assert config_of(server, "set")["max_batch_size"] == 8
    assert answer(server, "set") == (3, "1")


def test_a_changed_configuration_is_followed(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--model-control-mode", "poll", "--repository-poll-secs", "1")
    configure(folder, "set", SOUND.replace("max_batch_size: 4", "max_batch_size: 2"))
    eventually(
        lambda: config_of(server, "set")["max_batch_size"] == 2, limit_s=20, what="the configuration to be taken"
    )
    assert post(server, "/v2/repository/models/set/load").status == 503


def test_the_graph_alone_is_configuration_enough(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(graphs.write_all(tmp_path / "models", ["mixed"]))
    config = config_of(server, "mixed")
    assert {entry["name"] for entry in config["input"]}
    assert all(entry["data_type"].startswith("TYPE_") for entry in config["input"] + config["output"])
