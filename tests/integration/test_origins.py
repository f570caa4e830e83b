"""Web pages and this server: pages of other origins change nothing and read nothing, unless their origin is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs
from tests.conftest import serving
from tests.raw_http import HttpAnswer, ask
from tests.raw_http2 import grpc_call, http_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

EVIL = "http://evil.example"
FRIEND = "https://app.example"
SOUND = Inference("identity_FP32", [Tensor.of("x", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32")])
# What changes or tells more than a stranger has to know.
GUARDED = [
    ("POST", "/v2/repository/models/identity_FP32/unload"),
    ("POST", "/v2/repository/models/identity_FP32/load"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/trace/setting"),
    ("POST", "/v2/models/identity_FP32/trace/setting"),
    ("POST", "/v2/systemsharedmemory/region/r/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("GET", "/v2/models/stats"),
]
OPEN = [
    ("GET", "/v2"),
    ("GET", "/v2/models/identity_FP32"),
    ("GET", "/v2/models/identity_FP32/config"),
    ("GET", "/v1/models"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/v2/health/ready"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    flags = ["--allowed-origins", f"{FRIEND}, http://localhost:3000", "--allowed-hosts", "models.internal"]
    with serving(tmp_path_factory.mktemp("servers")) as start:
        yield start(folder, *flags)


def over_both(server: ServerProcess, method: str, target: str, headers: dict[str, str]) -> list[HttpAnswer]:
    over_http2 = http_call(server.http, method, target, headers=headers)
    return [ask(server.http, method, target, headers=headers), over_http2]


def is_served(server: ServerProcess) -> bool:
    return ask(server.http, "GET", "/v2/models/identity_FP32/ready").status == 200


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", ""])
@pytest.mark.parametrize(("method", "target"), GUARDED)
def test_a_page_of_another_origin_changes_nothing(server: ServerProcess, method: str, target: str, origin: str) -> None:
    for found in over_both(server, method, target, {"origin": origin, "content-type": "text/plain"}):
        assert (found.status, found.headers["mlserve-code"]) == (403, "not_allowed"), found
        assert "access-control-allow-origin" not in found.headers
    assert is_served(server)


@pytest.mark.parametrize(("method", "target"), OPEN)
def test_a_page_of_another_origin_may_ask_but_not_read(server: ServerProcess, method: str, target: str) -> None:
    for found in over_both(server, method, target, {"origin": EVIL}):
        assert found.status == 200, found
        assert "access-control-allow-origin" not in found.headers


def test_inference_does_not_ask_where_it_comes_from(server: ServerProcess) -> None:
    body, fields = SOUND.body()
    found = ask(server.http, "POST", SOUND.target, body, {**fields, "origin": EVIL})
    assert (found.status, "access-control-allow-origin" in found.headers) == (200, False)


@pytest.mark.parametrize(("method", "target"), [*OPEN, ("GET", "/v2/logging"), ("GET", "/nowhere")])
def test_a_page_of_an_allowed_origin_may_read(server: ServerProcess, method: str, target: str) -> None:
    for found in over_both(server, method, target, {"origin": FRIEND}):
        assert found.status == (404 if target == "/nowhere" else 200), found
        assert found.headers["access-control-allow-origin"] == FRIEND
        assert "origin" in found.headers["vary"]


def test_a_page_of_this_server_may_do_everything(server: ServerProcess) -> None:
    own = {"origin": f"http://{server.http}", "host": server.http}
    assert ask(server.http, "POST", "/v2/repository/index", headers=own).status == 200


def test_preflights_are_answered_for_allowed_origins_alone(server: ServerProcess) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-request-id"}
    allowed = ask(server.http, "OPTIONS", SOUND.target, headers={"origin": FRIEND, **asked})
    assert (allowed.status, allowed.body) == (204, b"")
    assert allowed.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == "content-type,x-request-id"
    refused = ask(server.http, "OPTIONS", SOUND.target, headers={"origin": EVIL, **asked})
    assert not any(name.startswith("access-control") for name in refused.headers)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_a_name_that_may_be_anybodys_changes_nothing_on_loopback(server: ServerProcess, host: str) -> None:
    for origin in ({}, {"origin": f"http://{host}"}):
        found = ask(server.http, "POST", "/v2/logging", headers={"host": host, **origin})
        assert (found.status, found.headers["mlserve-code"]) == (403, "not_allowed")
    assert ask(server.http, "GET", "/v2", headers={"host": host}).status == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "models.internal", "MODELS.internal:80"])
def test_a_name_of_this_machine_or_one_that_is_set_may(server: ServerProcess, host: str) -> None:
    assert ask(server.http, "POST", "/v2/logging", headers={"host": host}).status == 200


@pytest.mark.parametrize("path", ["RepositoryModelUnload", "LogSettings", "TraceSetting", "SystemSharedMemoryStatus"])
def test_grpc_from_a_page_changes_nothing_either(server: ServerProcess, path: str) -> None:
    found = grpc_call(server.grpc, b"", f"/inference.GRPCInferenceService/{path}", origin=EVIL)
    assert (found.grpc_status, found.code) == (7, "not_allowed")
    assert grpc_call(server.grpc, SOUND.message(), origin=EVIL).grpc_status == 0
