"""Models that are loaded and unloaded by request, over both transports, with what can be wrong about it."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests import graphs, repositories, slow_model
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http2 import grpc_call
from tests.repositories import answer, index, infer, load, post, put, unload

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

EXPLICIT = ("--model-control-mode", "explicit")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    put(repository, "a", 1, 2)
    put(repository, "b", 1, 3)
    return repository


@pytest.fixture
def server(start_server: StartServer, folder: Path) -> ServerProcess:
    return start_server(folder, *EXPLICIT)


def test_nothing_is_loaded_until_somebody_asks(server: ServerProcess) -> None:
    assert index(server) == {("a", ""): ("", ""), ("b", ""): ("", "")}
    assert infer(server, "a").status == 404
    client = triton_grpc.InferenceServerClient(server.grpc)
    assert client.is_server_ready()
    client.load_model("a")
    assert answer(server, "a") == (2, "1")
    assert index(server)["a", "1"] == ("READY", "")
    ready = client.get_model_repository_index(as_json=True)["models"]
    assert {"name": "b"} in ready


def test_both_transports_load_and_unload(server: ServerProcess) -> None:
    http = triton_http.InferenceServerClient(server.http)
    grpc = triton_grpc.InferenceServerClient(server.grpc)
    for client, other in [(http, grpc), (grpc, http)]:
        client.load_model("a")
        assert other.is_model_ready("a")
        other.unload_model("a")
        assert not client.is_model_ready("a")
        assert index(server)["a", "1"] == ("UNAVAILABLE", "unloaded")
    assert infer(server, "a").text == "Request for unknown model: 'a' has no available versions"
    assert grpc.is_server_ready(), "a model unloaded on purpose is no fault"


def test_models_of_the_start_are_loaded_at_once(start_server: StartServer, folder: Path) -> None:
    one = start_server(folder, *EXPLICIT, "--load-models", "b")
    assert answer(one, "b") == (3, "1")
    assert infer(one, "a").status == 404
    every = start_server(folder, *EXPLICIT, "--load-models", "*")
    assert (answer(every, "a"), answer(every, "b")) == ((2, "1"), (3, "1"))


def test_loading_again_takes_what_has_changed_and_only_that(server: ServerProcess, folder: Path) -> None:
    assert load(server, "a").status == 200
    put(folder, "a", 1, 5)
    assert load(server, "a").status == 200
    assert answer(server, "a") == (5, "1")
    loads = server.log.read_text().count("model is ready")
    assert load(server, "a").status == 200
    assert server.log.read_text().count("model is ready") == loads, "nothing has changed"


def test_a_new_version_takes_over_and_the_old_one_goes(server: ServerProcess, folder: Path) -> None:
    load(server, "a")
    put(folder, "a", 2, 7)
    assert load(server, "a").status == 200
    assert answer(server, "a") == (7, "2")
    eventually(lambda: index(server)["a", "1"] == ("UNAVAILABLE", "unloaded"), limit_s=5, what="version 1 to be gone")
    assert infer(server, "a", 1).status == 503
    assert metric(server, "mlserve_model_state", model="a", version="2", state="ready") == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_load_that_fails_leaves_what_serves(server: ServerProcess, folder: Path, version: int) -> None:
    load(server, "a")
    repositories.damage(folder, "a", version)
    refused = load(server, "a")
    assert refused.status == 500
    assert refused.text.startswith("failed to load 'a', version")
    assert "no ONNX model" in refused.text
    assert str(folder) not in refused.text
    assert answer(server, "a") == (2, "1")
    state, reason = index(server)["a", str(version)]
    assert "no ONNX model" in reason
    assert state == ("READY" if version == 1 else "UNAVAILABLE")
    assert "no ONNX model" in server.log.read_text()
    assert metric(server, "mlserve_model_loads_total", model="a", outcome="failed") == 1
    put(folder, "a", version, 9)
    assert load(server, "a").status == 200
    assert answer(server, "a") == (9, str(version))


def test_a_load_that_failed_is_tried_again_when_asked(server: ServerProcess, folder: Path) -> None:
    load(server, "a")
    repositories.damage(folder, "a", 1)
    assert [load(server, "a").status for _ in range(2)] == [500, 500], "also without a change of the file"


def test_files_and_configuration_may_come_with_the_load(server: ServerProcess) -> None:
    client = triton_http.InferenceServerClient(server.http)
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 8})
    client.load_model("sent", config=config, files={"file:3/model.onnx": graphs.times(11)})
    assert answer(server, "sent") == (11, "3")
    grpc = triton_grpc.InferenceServerClient(server.grpc)
    grpc.load_model("sent", config=config, files={"file:4/model.onnx": graphs.times(12)})
    assert answer(server, "sent") == (12, "4")
    grpc.unload_model("sent")
    assert infer(server, "sent").status == 404


def test_unloading_a_busy_model_answers_what_is_in_flight(start_server: StartServer, folder: Path) -> None:
    path = graphs.write(folder, "slow", graphs.slow())
    server = start_server(folder, *EXPLICIT, "--load-models", "slow,a", *slow_model.FLAGS)
    unloaded: list[int] = []
    unloading = threading.Thread(target=lambda: unloaded.append(unload(server, "slow").status))
    with slow_model.busy(server, slow_model.turns_for(path, 1.0), waiting=2):
        unloading.start()
        eventually(lambda: index(server)["slow", "1"][0] == "UNLOADING", limit_s=5, what="the model to drain")
        refused = grpc_call(server.grpc, slow_model.inference(1).message())
        assert (refused.grpc_status, "it is draining" in refused.grpc_text) == (14, True), "new requests are refused"
        assert answer(server, "a") == (2, "1"), "other callers notice nothing"
        assert unloaded == [], "it is not unloaded while requests are in flight"
    # Leaving the block has found all three answered.
    unloading.join()
    assert unloaded == [200]
    assert index(server)["slow", "1"] == ("UNAVAILABLE", "unloaded")


def test_many_may_ask_at_once(server: ServerProcess) -> None:
    """Loads and unloads of two models from several callers, while others ask: orders are carried out one by one."""
    load(server, "a")
    statuses: list[int] = []

    def churn() -> None:
        for _ in range(5):
            statuses.extend([load(server, "b").status, unload(server, "b").status])

    callers = [threading.Thread(target=churn) for _ in range(3)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        assert answer(server, "a") == (2, "1")
    for caller in callers:
        caller.join()
    assert set(statuses) == {200}
    assert infer(server, "b").status == 404


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("nobody", 404, "failed to load 'nobody', failed to poll from model repository"),
        ("..", 400, "'..' is no name for a model"),
        ("%2e%2e%2fa", 400, "'../a' is no name for a model"),
        ("a%0ab", 400, "is no name for a model"),
        ("a" * 200, 400, "is no name for a model"),
    ],
)
def test_names_that_cannot_be_loaded(server: ServerProcess, name: str, status: int, text: str) -> None:
    refused = load(server, name)
    assert refused.status == status
    assert text in refused.text
    assert (unload(server, name).status == 200) == (name == "nobody"), "as Triton has it"


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"nonsense": "x"}, "unknown parameter 'nonsense'"),
        ({"config": 5}, "invalid value type for 'config'"),
        ({"file:1/model.onnx": "AAAA"}, "parameter 'config' is required"),
        ({"config": "{}", "file:../x": "AAAA"}, "'file:../x' is no place for a file"),
        ({"config": "{}", "file:/etc/x": "AAAA"}, "'file:/etc/x' is no place for a file"),
        ({"config": "{}", "file:1/model.onnx": "***"}, "is not base64"),
    ],
)
def test_parameters_that_make_no_sense(server: ServerProcess, parameters: dict[str, object], text: str) -> None:
    load(server, "a")
    refused = load(server, "a", **parameters)
    assert (refused.status, text in refused.text) == (400, True), refused
    assert answer(server, "a") == (2, "1"), "nothing else has changed"


def test_sent_files_that_are_no_model_leave_what_serves(server: ServerProcess) -> None:
    load(server, "a")
    rubbish = base64.b64encode(b"rubbish").decode()
    refused = load(server, "a", **{"config": "{}", "file:1/model.onnx": rubbish})
    assert refused.status == 400, "what was sent is the caller's to mend"
    assert "upload" not in refused.text
    assert answer(server, "a") == (2, "1")


def test_a_link_out_of_the_repository_is_not_loaded(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "elsewhere", "secret", 1, 13)
    (folder / "linked" / "1").mkdir(parents=True)
    (folder / "linked" / "1" / "model.onnx").symlink_to(secret)
    refused = load(server, "linked")
    assert refused.status == 500
    assert "leads outside the repository" in refused.text


def test_another_repository_is_not_supported(server: ServerProcess) -> None:
    for path in ("index", "models/a/load", "models/a/unload"):
        refused = post(server, f"/v2/repository/other/{path}")
        assert (refused.status, refused.text) == (501, "'repository_name' specification is not supported")


def test_without_explicit_mode_nothing_changes(example_server: ServerProcess) -> None:
    for action in (load, unload):
        refused = action(example_server, "digits")
        assert refused.status == 503
        assert refused.text.startswith("explicit model load / unload is not allowed if polling is enabled")
        assert "retry-after" not in refused.headers
    assert triton_http.InferenceServerClient(example_server.http).is_model_ready("digits")
