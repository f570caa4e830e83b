"""Trace settings as foreign clients change them, and the files that come of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_clients import CLIENTS, Asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

OFF = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0", "trace_mode": "triton"}
# What Triton's trace_summary.py needs of a request over each protocol, in the order in which it happens.
STAGES = [
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
    "REQUEST_END",
]
FRONTS = {
    "grpc": (["GRPC_WAITREAD_START", "GRPC_WAITREAD_END"], ["GRPC_SEND_START", "GRPC_SEND_END"]),
    "http": (["HTTP_RECV_START", "HTTP_RECV_END"], ["HTTP_SEND_START", "HTTP_SEND_END"]),
}


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


@pytest.fixture
def server(start_server: StartServer, graph_folder: Path, trace_file: Path) -> ServerProcess:
    return start_server(graph_folder, "--trace-file", str(trace_file), "--drain-notice-ms", "0")


def change(
    server: ServerProcess, settings: Mapping[str, Any], *, model: str | None = None, protocol: str = "http"
) -> dict[str, Any]:
    """Changes settings, and returns all in HTTP's form."""
    if protocol == "http":
        with tritonclient.http.InferenceServerClient(server.http) as client:
            changed: dict[str, Any] = client.update_trace_settings(model_name=model, settings=dict(settings))
            return changed
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        answer = client.update_trace_settings(model_name=model, settings=dict(settings))
        found = {name: list(setting.value) for name, setting in answer.settings.items()}
        return {name: value if name == "trace_level" else value[0] for name, value in found.items()}


def infer(server: ServerProcess, protocol: str, *, model: str = "mlp", name: str = "") -> None:
    asked = Asked(model, {"x": np.ones((1, 8), np.float32)}, {"x": "FP32"}, options={"request_id": name})
    CLIENTS[protocol](server.http if protocol == "http" else server.grpc, asked)


def traces(path: Path) -> dict[int, dict[str, Any]]:
    """The traces of a file by their ids, each with its timestamps as pairs."""
    found: dict[int, dict[str, Any]] = {}
    for member in json.loads(path.read_text()):
        trace = found.setdefault(member["id"], {"timestamps": []})
        trace["timestamps"] += [(stamp["name"], stamp["ns"]) for stamp in member.pop("timestamps", [])]
        trace.update(member)
    return found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_settings_are_told_changed_and_cleared(server: ServerProcess, trace_file: Path, protocol: str) -> None:
    off = OFF | {"trace_file": str(trace_file)}
    assert change(server, {}, protocol=protocol) == off
    assert change(server, {"trace_rate": "5", "trace_count": "7"}, protocol=protocol) == off | {
        "trace_rate": "5",
        "trace_count": "7",
    }
    of_model = change(server, {"trace_level": ["TIMESTAMPS"], "log_frequency": "2"}, model="mlp", protocol=protocol)
    assert of_model == off | {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": "5",
        "trace_count": "7",
        "log_frequency": "2",
    }
    assert change(server, {}, protocol=protocol)["trace_level"] == ["OFF"]
    change(server, {"trace_level": None, "log_frequency": None}, model="mlp", protocol=protocol)
    change(server, {"trace_rate": None, "trace_count": None}, protocol=protocol)
    assert change(server, {}, model="mlp", protocol=protocol) == off


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_traced_request_tells_its_stages(server: ServerProcess, trace_file: Path, protocol: str) -> None:
    infer(server, protocol, name="before")
    change(server, {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
    infer(server, protocol, name="traced")
    change(server, {"trace_level": ["OFF"]})
    infer(server, protocol, name="after")
    assert server.stop() == 0
    (trace,) = traces(trace_file).values()
    assert (trace["model_name"], trace["model_version"], trace["request_id"]) == ("mlp", 1, "traced")
    before, after = FRONTS[protocol]
    assert [name for name, _ in trace["timestamps"]] == [*before, *STAGES, *after]
    moments = [ns for _, ns in trace["timestamps"]]
    assert moments == sorted(moments)


def test_one_of_so_many_requests_is_traced_up_to_the_count(server: ServerProcess, trace_file: Path) -> None:
    change(server, {"trace_level": ["TIMESTAMPS"], "trace_rate": "3", "trace_count": "2"})
    for number in range(1, 12):
        infer(server, "http", name=str(number))
    assert change(server, {})["trace_count"] == "0"
    assert server.stop() == 0
    assert [trace["request_id"] for trace in traces(trace_file).values()] == ["3", "6"]


def test_a_model_may_be_traced_alone_into_files_of_so_many(server: ServerProcess, trace_file: Path) -> None:
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "2"}
    change(server, settings, model="mlp", protocol="grpc")
    for number in range(3):
        infer(server, "grpc", name=str(number))
        infer(server, "grpc", model="identity_FP32", name="other")
    assert server.stop() == 0
    parts = [traces(trace_file.with_name(f"trace.json.{index}")) for index in range(2)]
    assert [[trace["request_id"] for trace in part.values()] for part in parts] == [["0", "1"], ["2"]]


@pytest.mark.parametrize(
    ("settings", "model", "status", "text"),
    [
        (
            {"trace_file": "other.json"},
            None,
            "501",
            "trace file location can not be updated through network protocol",
        ),
        ({"trace_level": ["TENSORS"]}, None, "501", "trace level TENSORS is not offered"),
        ({"trace_mode": "opentelemetry"}, None, "501", "trace mode opentelemetry is not offered"),
        ({"trace_rate": "often"}, None, "400", "Unable to parse 'trace_rate', got: often"),
        ({"trace_rate": {"a": 1}}, None, "400", "allowed are a text, a list of texts, and null"),
        ({"trace_rate": "2"}, "nobody", "400", "Request for unknown model : nobody"),
    ],
)
def test_what_cannot_be_set_is_refused(
    server: ServerProcess, settings: Mapping[str, Any], model: str | None, status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        change(server, settings, model=model)
    assert caught.value.status() == status
    assert text in caught.value.message()


def test_without_a_file_nothing_can_be_traced(graph_server: ServerProcess) -> None:
    with pytest.raises(InferenceServerException, match="start the server with --trace-file") as caught:
        change(graph_server, {"trace_level": ["TIMESTAMPS"]})
    assert caught.value.status() == "400"
    assert change(graph_server, {}) == OFF | {"trace_file": ""}
