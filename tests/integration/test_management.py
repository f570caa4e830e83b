"""Managing a server with our own client, command line and Python class, as a user would."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlserve import AsyncClient, Client, Server
from mlserve.errors import InvalidArgumentError, MlserveError, NotFoundError, UnavailableError
from tests import graphs
from tests.conftest import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
EXPLICIT = ("--model-control-mode", "explicit", "--load-models", "*")
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.write_all(tmp_path_factory.mktemp("repository"), ["mlp", "identity_FP32"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("managed")
    with serving(folder) as start:
        yield start(repository, *EXPLICIT, "--allow-client-shm", "--trace-file", str(folder / "trace.json"))


@pytest.fixture(params=["grpc", "http", "grpc-async", "http-async"])
def ask(request: pytest.FixtureRequest, server: ServerProcess) -> Ask:
    """Calls one method of each client in turn: `ask("load_model", "mlp")`."""
    name: str = request.param
    url = f"grpc://{server.grpc}" if name.startswith("grpc") else f"http://{server.http}"

    def blocking(method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(url) as client:
            return getattr(client, method)(*args, **kwargs)

    def asynchronous(method: str, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(url) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    return asynchronous if name.endswith("async") else blocking


def states(ask: Ask) -> dict[str, str]:
    return {model.name: model.state for model in ask("models")}


# ---- clients --------------------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded(ask: Ask) -> None:
    assert states(ask) == {"mlp": "READY", "identity_FP32": "READY"}
    expected = ask("infer", "mlp", X)["probabilities"]
    ask("unload_model", "mlp")
    try:
        (unloaded,) = (model for model in ask("models") if model.name == "mlp")
        assert (unloaded.state, unloaded.reason) == ("UNAVAILABLE", "unloaded")
        assert [model.name for model in ask("models", ready=True)] == ["identity_FP32"]
        with pytest.raises(MlserveError, match="'mlp'"):
            ask("infer", "mlp", {"x": X})
    finally:
        ask("load_model", "mlp")
    np.testing.assert_array_equal(ask("infer", "mlp", X)["probabilities"], expected)


def test_a_configuration_is_given_and_told(ask: Ask) -> None:
    ask("load_model", "mlp", config={"backend": "onnxruntime", "max_batch_size": 7})
    try:
        config = ask("model_config", "mlp")
        assert config["max_batch_size"] == 7
        assert (config["input"][0]["data_type"], config["input"][0]["dims"]) == ("TYPE_FP32", [8])
    finally:
        ask("load_model", "mlp")


def test_a_model_is_sent(ask: Ask) -> None:
    ask("load_model", "sent", config={"backend": "onnxruntime"}, files={"1/model.onnx": graphs.mlp()})
    np.testing.assert_array_equal(ask("infer", "sent", X)["probabilities"], ask("infer", "mlp", X)["probabilities"])
    ask("unload_model", "sent")


def test_what_cannot_be_loaded_is_our_error(ask: Ask) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        ask("load_model", "nobody")
    with pytest.raises(InvalidArgumentError, match="max_batch_size"):
        ask("load_model", "mlp", config={"max_batch_size": "many"})
    assert states(ask)["mlp"] == "READY"


def test_statistics_count_what_was_asked(ask: Ask) -> None:
    (before,) = ask("statistics", "mlp")
    ask("infer", "mlp", X)
    (after,) = ask("statistics", "mlp", version="1")
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    success = after.inference_stats.success - before.inference_stats.success
    assert (success.count, success.ns > 0) == (1, True)
    assert {item.name for item in ask("statistics")} >= {"mlp", "identity_FP32"}


def test_the_best_classes_are_returned(ask: Ask) -> None:
    values = ask("infer", "mlp", X)["probabilities"]
    found = ask("infer", "mlp", X, classification={"probabilities": 2})
    best = np.argsort(-values, axis=1, kind="stable")[:, :2]
    assert [[int(item.split(b":")[1]) for item in row] for row in found["probabilities"].tolist()] == best.tolist()


def test_settings_are_told_and_changed(ask: Ask) -> None:
    assert ask("trace_settings")["trace_level"] == ["OFF"]
    assert ask("trace_settings", {"trace_rate": 7}, model="mlp")["trace_rate"] == "7"
    assert ask("trace_settings", {"trace_rate": None}, model="mlp")["trace_rate"] != "7"
    assert ask("log_settings", {"log_info": False})["log_info"] is False
    assert ask("log_settings", {"log_info": True})["log_info"] is True


def test_regions_of_shared_memory_are_told(ask: Ask) -> None:
    assert ask("system_shared_memory") == {}
    assert ask("cuda_shared_memory") == {}
    ask("unregister_system_shared_memory")
    with pytest.raises(MlserveError):
        ask("register_system_shared_memory", "none", "/mlserve_no_such_object", 8)


def test_a_server_with_fixed_models_says_so(example_server: ServerProcess) -> None:
    for url in (f"grpc://{example_server.grpc}", f"http://{example_server.http}"):
        with Client(url) as client:
            with pytest.raises(UnavailableError, match="explicit model load / unload is not allowed"):
                client.load_model("digits")
            assert client.is_model_ready("digits")


# ---- command line ---------------------------------------------------------------------------------------------------


def mlserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlserve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_models_are_managed_from_the_command_line(server: ServerProcess, tmp_path: Path, protocol: str) -> None:
    url = ("--url", server.http, "--protocol", protocol)
    assert mlserve("unload", "identity_FP32", *url).returncode == 0
    listed = mlserve("models", *url).stdout.splitlines()
    assert any(line.split() == ["identity_FP32", "1", "UNAVAILABLE", "unloaded"] for line in listed)
    config = tmp_path / "config.pbtxt"
    config.write_text('backend: "onnxruntime" max_batch_size: 5')
    assert mlserve("load", "identity_FP32", "--config", str(config), *url).returncode == 0
    found = json.loads(mlserve("models", "--ready", "--json", *url).stdout)
    assert {model["name"]: model["state"] for model in found} == {"mlp": "READY", "identity_FP32": "READY"}
    assert mlserve("load", "identity_FP32", *url).returncode == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_statistics_are_shown_on_the_command_line(server: ServerProcess, protocol: str) -> None:
    url = ("--url", server.http, "--protocol", protocol)
    with Client(server.grpc) as client:
        client.infer("mlp", X)
        (counted,) = client.statistics("mlp")
    head, line = mlserve("stats", "mlp", *url).stdout.splitlines()
    shown = dict(zip(head.replace(" µs", "").split(), line.split(), strict=True))
    assert (shown["MODEL"], shown["VERSION"]) == ("mlp", "1")
    assert (int(shown["ROWS"]), int(shown["RUNS"])) == (counted.inference_count, counted.execution_count)
    (told,) = json.loads(mlserve("stats", "mlp", "--json", *url).stdout)
    assert told["inference_count"] == counted.inference_count


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["load", "nobody"], "nobody"), (["stats", "nobody"], "requested model 'nobody' is not available")],
    ids=["load", "stats"],
)
def test_a_refusal_is_a_message_and_a_status(server: ServerProcess, arguments: list[str], text: str) -> None:
    done = mlserve(*arguments, "--url", server.grpc)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mlserve: ")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["load", "unload"])
def test_fixed_models_stay_and_the_way_out_is_told(example_server: ServerProcess, command: str) -> None:
    done = mlserve(command, "digits", "--url", example_server.grpc)
    assert done.returncode == 1
    assert "--model-control-mode explicit" in done.stderr


# ---- in one's own process -------------------------------------------------------------------------------------------


def test_models_are_managed_in_ones_own_process(repository: Path) -> None:
    with Server(repository, server={"model_control_mode": "explicit", "load_models": "mlp"}) as server:
        assert {model.name: model.state for model in server.models()}["mlp"] == "READY"
        expected = server.infer("mlp", {"x": X})["probabilities"]
        server.load("identity_FP32", {"max_batch_size": 5})
        np.testing.assert_array_equal(server.infer("identity_FP32", {"x": X})["y"], X)
        server.unload("mlp")
        with pytest.raises(MlserveError, match="'mlp'"):
            server.infer("mlp", {"x": X})
        server.load("mlp")
        np.testing.assert_array_equal(server.infer("mlp", {"x": X})["probabilities"], expected)
        (counted,) = server.statistics("mlp")
        assert counted.inference_count >= 3
        with pytest.raises(NotFoundError, match="nobody"):
            server.load("nobody")
