"""Bodies of the management routes: as large as what they say, and no larger in memory than they are."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import graphs
from tests.conftest import serving
from tests.oracle import Oracle, resident_bytes
from tests.raw_http import connected, exchange, head, read_answer

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

LARGE = 8 << 20
SETTINGS = [
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/models/identity_FP32/trace/setting",
    "/v2/repository/index",
    "/v2/repository/models/identity_FP32/unload",
    "/v2/systemsharedmemory/region/r/register",
]
LOAD = "/v2/repository/models/identity_FP32/load"
# What makes a general reader allocate: a list of empty lists takes 32 bytes for 3.
NESTED = b'{"log_info":[' + b"[]," * (LARGE // 3) + b"[]]}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    flags = ("--model-control-mode", "explicit", "--load-models", "*", "--allow-client-shm")
    with serving(tmp_path_factory.mktemp("servers")) as start:
        found = start(folder, *flags)
        oracle = Oracle(found)
        yield found
        oracle.check()


@pytest.mark.parametrize("target", SETTINGS)
def test_a_large_body_of_settings_is_refused_by_its_head(server: ServerProcess, target: str) -> None:
    found = exchange(server.http, head("POST", target, {"content-length": str(len(NESTED))}))
    assert found is not None
    assert (found.status, "65536" in found.text) == (413, True), found


@pytest.mark.parametrize("target", SETTINGS)
def test_a_large_body_in_chunks_is_refused_where_the_limit_is(server: ServerProcess, target: str) -> None:
    with connected(server.http) as opened:
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        opened.sendall(head("POST", target, {"transfer-encoding": "chunked"}) + 3 * chunk)
        answer = read_answer(opened)
    assert answer is not None
    assert answer.status == 413


def peak_bytes(server: ServerProcess) -> int:
    """The most memory that the process has held since this was asked for the last time."""
    process = Path(f"/proc/{server.process.pid}")
    lines = (process / "status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("VmHWM:"))
    (process / "clear_refs").write_text("5")
    return int(found.split()[1]) << 10


def test_a_load_costs_a_few_times_its_bytes_whatever_they_are(server: ServerProcess) -> None:
    peak_bytes(server)
    before = resident_bytes(server)
    sent = head("POST", LOAD, {"content-length": str(len(NESTED))}) + NESTED
    for _ in range(3):
        found = exchange(server.http, sent)
        assert found is not None
        # Read to its end and passed over: it names nothing that a load knows.
        assert found.status == 200, found
    assert peak_bytes(server) - before < 8 * LARGE


def test_a_load_with_too_many_parameters_is_refused(server: ServerProcess) -> None:
    files = {f"file:{number}": "" for number in range(5_000)}
    body = json.dumps({"parameters": files}).encode()
    found = exchange(server.http, head("POST", LOAD, {"content-length": str(len(body))}) + body)
    assert found is not None
    assert (found.status, "4096" in found.text) == (413, True), found


def test_what_is_no_base64_is_named(server: ServerProcess) -> None:
    body = json.dumps(
        {"parameters": {"config": "{}", "file:1/model.onnx": "?" + base64.b64encode(b"x").decode()}}
    ).encode()
    found = exchange(server.http, head("POST", LOAD, {"content-length": str(len(body))}) + body)
    assert found is not None
    assert (found.status, "is not base64" in found.text) == (400, True), found


def test_the_mode_is_checked_before_the_body(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    with serving(tmp_path_factory.mktemp("servers")) as start:
        server = start(folder)
        for target in (LOAD, "/v2/repository/models/identity_FP32/unload"):
            found = exchange(server.http, head("POST", target, {"content-length": str(LARGE)}))
            assert found is not None
            assert (found.status, found.headers["mlserve-code"]) == (503, "model_control")
        target = "/v2/systemsharedmemory/region/r/register"
        found = exchange(server.http, head("POST", target, {"content-length": "1000"}))
        assert found is not None
        assert found.status == 501
