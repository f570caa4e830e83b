"""Log settings as foreign clients change them, and the lines that come of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.conftest import eventually
from tests.raw_http import connected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

AT_START = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


@pytest.fixture
def server(start_server: StartServer, graph_folder: Path) -> ServerProcess:
    return start_server(graph_folder, "--log-format", "json")


def change(server: ServerProcess, settings: Mapping[str, Any], *, protocol: str = "http") -> dict[str, Any]:
    """Changes settings, and returns all."""
    if protocol == "http":
        with tritonclient.http.InferenceServerClient(server.http) as client:
            changed: dict[str, Any] = client.update_log_settings(settings=dict(settings))
            return changed
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        answer = client.update_log_settings(settings=dict(settings))
        return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.settings.items()}


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    """The log's lines so far; what the command prints for people is left out."""
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def levels(server: ServerProcess) -> set[str]:
    return {line["level"] for line in lines(server)}


def break_a_connection(server: ServerProcess) -> None:
    """Does what is worth a line for debugging: that a connection ended badly."""
    with connected(server.metrics) as opened:
        opened.sendall(b"\x00 nonsense\r\n\r\n")
        while opened.recv(1 << 12):
            pass


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_settings_are_told_and_changed(server: ServerProcess, protocol: str) -> None:
    assert change(server, {}, protocol=protocol) == AT_START
    settings = {"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"}
    assert change(server, settings, protocol=protocol) == AT_START | settings
    assert change(server, {}, protocol=protocol) == AT_START | settings


def test_the_level_at_the_start_is_that_of_the_settings(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder, "--log-level", "warn")
    assert change(server, {}) == AT_START | {"log_info": False}


def test_verbose_lines_come_and_go(server: ServerProcess) -> None:
    break_a_connection(server)
    assert "DEBUG" not in levels(server)
    change(server, {"log_verbose_level": 1})
    break_a_connection(server)
    eventually(lambda: "DEBUG" in levels(server), limit_s=5, what="a line for debugging")
    change(server, {"log_verbose_level": 0, "log_info": False})
    count = len(lines(server))
    break_a_connection(server)
    change(server, {"log_error": True})
    assert len(lines(server)) == count, "not even the change itself is told"


def test_times_are_written_to_the_second_if_asked(server: ServerProcess) -> None:
    assert len(lines(server)[-1]["timestamp"]) > len("2026-01-01T00:00:00Z")
    change(server, {"log_format": "ISO8601"})
    eventually(lambda: len(lines(server)[-1]["timestamp"]) == len("2026-01-01T00:00:00Z"), limit_s=5, what="whole")


@pytest.mark.parametrize(
    ("settings", "status", "text"),
    [
        ({"log_file": "other.log"}, "501", "log file location can not be updated through network protocol"),
        ({"log_info": "yes"}, "400", "expect boolean for 'log_info'"),
        ({"log_verbose_level": -1}, "400", "log setting 'log_verbose_level' is -1; allowed are"),
        ({"log_format": "json"}, "400", "invalid argument for log_format, got: json"),
        ({"log_infos": True}, "400", "unknown log setting 'log_infos'"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    server: ServerProcess, settings: Mapping[str, Any], status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        change(server, {"log_warning": False, **settings})
    assert caught.value.status() == status
    assert text in caught.value.message()
    assert change(server, {}) == AT_START
