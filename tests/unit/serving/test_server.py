"""The in-process server's Python side: settings, life, and calls, over a stand-in for the extension."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlserve.errors import ConfigError, InvalidArgumentError, LifecycleError
from mlserve.types import ModelIndex

X = np.array([1.0], np.float32)


class CoreServer:
    """Notes what it is told; answers an inference with its own first input."""

    def __init__(self, settings_json: str, ort_library: str | None) -> None:
        self.settings = json.loads(settings_json)
        self.ort_library = ort_library
        self.stopped: list[bool] = []
        self.state = "was not started"
        self.timeout_us: int | None = None
        self.asked: list[tuple[str | None, ...]] = []
        self.metadata_asked: list[tuple[str, str]] = []

    def start(self) -> None:
        if self.state != "was not started":
            raise LifecycleError("the server was started before; make a new one")
        self.state = "did not start"
        if self.settings["server"].get("host") == "bad":
            raise ConfigError("server.host is bad")
        self.state = "runs"

    def leave(self) -> None:
        self.state = "is stopped"

    def check(self) -> None:
        if self.state != "runs":
            raise LifecycleError(f"the server {self.state}")

    def addresses(self) -> dict[str, str]:
        self.check()
        return {"http": "127.0.0.1:1", "grpc": "127.0.0.1:2", "metrics": "127.0.0.1:3", "uds": "/run/m.sock"}

    def stop(self, drain: bool) -> None:  # noqa: FBT001 -- the extension's signature
        self.state = "is stopped"
        self.stopped.append(drain)

    def infer(
        self, model: str, version: str, inputs: Sequence[Any], outputs: Any, parameters: Any, timeout_us: int | None
    ) -> Any:
        self.check()
        del outputs
        self.timeout_us = timeout_us
        ((_, datatype, shape, data),) = inputs
        return model, version or "1", [("y", datatype, list(shape), bytes(data))], dict(parameters)

    def model_metadata(self, model: str, version: str) -> bytes:
        self.metadata_asked.append((model, version))
        tensors = [{"name": name, "datatype": "FP16", "shape": [-1]} for name in ("x", "z")[: 1 + (model == "two")]]
        return json.dumps({"name": model, "inputs": tensors, "outputs": []}).encode()

    def snapshot(self) -> str:
        self.check()
        return '{"models": {}}'

    def index(self) -> str:
        self.check()
        return '[{"name": "m", "version": "1", "state": "READY"}, {"name": "n"}]'

    def load(self, name: str, config_json: str | None) -> None:
        self.check()
        self.asked.append(("load", name, config_json))

    def unload(self, name: str) -> None:
        self.check()
        self.asked.append(("unload", name))

    def statistics(self, name: str) -> str:
        self.check()
        return json.dumps({"model_stats": [{"name": name or "all", "version": "1", "inference_count": 5}]})


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test, with the stand-in instead of the extension."""
    core = ModuleType("mlserve._core")
    core.Server = CoreServer  # type: ignore[attr-defined]
    core.forked = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlserve._core", core)
    monkeypatch.setattr("mlserve._core", core, raising=False)
    monkeypatch.delitem(sys.modules, "mlserve.serving.server", raising=False)
    yield importlib.import_module("mlserve.serving.server")
    sys.modules.pop("mlserve.serving.server", None)


def test_settings_are_those_of_the_file_with_free_ports(serving: Any) -> None:
    merged = serving.merge_settings(
        Path("models"),
        {"a": Path("a.onnx"), "b": {"threads": 1}},
        {"server": {"http_port": 9}, "log": {"access_log": True}},
    )
    assert merged == {
        "server": {"http_port": 9, "grpc_port": 0, "metrics_port": 0, "models_path": "models"},
        "log": {"access_log": True},
        "models": {"a": {"path": "a.onnx"}, "b": {"threads": 1}},
    }


def test_a_setting_that_is_no_table_is_refused(serving: Any) -> None:
    with pytest.raises(ConfigError, match="http_port is 9; it takes a table"):
        serving.Server("models", http_port=9)


def test_the_path_cannot_be_given_twice(serving: Any) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        serving.Server("models", server={"models_path": "other"})


def test_addresses_become_urls(serving: Any) -> None:
    with serving.Server("models") as server:
        assert (server.http_url, server.grpc_url) == ("http://127.0.0.1:1", "127.0.0.1:2")
        assert (server.metrics_url, server.uds) == ("http://127.0.0.1:3/metrics", "unix:///run/m.sock")
        assert server.snapshot() == {"models": {}}


def test_an_inference_needs_no_socket(serving: Any) -> None:
    with serving.Server("models") as server:
        result = server.infer("m", {"x": X}, parameters={"p": 1}, priority=2, timeout_s=0.5)
        assert result["y"].tolist() == [1.0]
        assert (result.model_name, result.model_version, result.parameters) == ("m", "1", {"p": 1, "priority": 2})
        assert server._core.timeout_us == 500_000
        assert not server._core.metadata_asked, "arrays by name need none"


def test_values_and_a_single_array_take_name_and_type_from_the_model(serving: Any) -> None:
    with serving.Server("models") as server:
        assert server.infer("m", {"x": [1, 2]}, version="3")["y"].dtype == np.float16
        assert server.infer("m", X)["y"].tolist() == [1.0]
        assert server._core.metadata_asked == [("m", "3"), ("m", "")]
        with pytest.raises(InvalidArgumentError, match="2 inputs"):
            server.infer("two", X)


def test_models_are_managed_without_a_socket(serving: Any) -> None:
    with serving.Server("models") as server:
        assert server.models() == [ModelIndex("m", "1", "READY", ""), ModelIndex("n", "", "", "")]
        server.load("m")
        server.load("m", {"max_batch_size": 4})
        server.load("m", '{"max_batch_size": 8}')
        server.unload("m")
        assert server._core.asked == [
            ("load", "m", None),
            ("load", "m", '{"max_batch_size": 4}'),
            ("load", "m", '{"max_batch_size": 8}'),
            ("unload", "m"),
        ]
        assert [(found.name, found.inference_count) for found in server.statistics()] == [("all", 5)]
        assert [found.name for found in server.statistics("m")] == ["m"]


@pytest.mark.parametrize(
    ("method", "arguments"), [("models", ()), ("load", ("m",)), ("unload", ("m",)), ("statistics", ())]
)
def test_models_are_managed_only_while_the_server_runs(serving: Any, method: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(LifecycleError, match="was not started"):
        getattr(serving.Server("models"), method)(*arguments)


def test_leaving_drains_unless_an_error_is_under_way(serving: Any) -> None:
    with serving.Server() as server:
        pass
    assert server._core.stopped == [True]
    with pytest.raises(ZeroDivisionError), serving.Server() as server:
        raise ZeroDivisionError
    assert server._core.stopped == [False]


def test_a_server_lives_once(serving: Any) -> None:
    server = serving.Server()
    with pytest.raises(LifecycleError, match="was not started"):
        server.http_url  # noqa: B018 -- reading it is the test
    server.start()
    with pytest.raises(LifecycleError, match="started before"):
        server.start()
    server.stop()
    with pytest.raises(LifecycleError, match="is stopped"):
        server.infer("m", {"x": X})


def test_a_failed_start_is_no_running_server(serving: Any) -> None:
    server = serving.Server(server={"host": "bad"})
    with pytest.raises(ConfigError):
        server.start()
    with pytest.raises(LifecycleError, match="did not start"):
        server.snapshot()


def test_two_servers_live_side_by_side(serving: Any) -> None:
    with serving.Server() as one, serving.Server() as other:
        assert one.http_url
        assert other.http_url
    with serving.Server() as third:
        assert third.http_url


def test_a_fork_is_told_to_spawn(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving.Server() as server:
        child = os.getpid() + 1
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: child)
            with pytest.raises(LifecycleError, match="'spawn' method"):
                server.infer("m", {"x": X})
            with pytest.raises(LifecycleError, match="'spawn' method"):
                serving.Server()


def test_the_runtime_of_the_package_is_handed_over(serving: Any) -> None:
    library = serving.Server()._core.ort_library
    assert library is not None
    assert Path(library).name.startswith("libonnxruntime.so")
