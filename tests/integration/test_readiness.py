"""When the server as a whole is ready, by who decides what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import eventually
from tests.raw_http import ask
from tests.repositories import put

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

LIMIT_S = 15


def readiness(server: ServerProcess) -> set[int]:
    """What both ports say, in one."""
    return {
        ask(server.metrics, "GET", "/readyz").status,
        ask(server.metrics, "GET", "/v2/health/ready").status,
        ask(server.http, "GET", "/v2/health/ready").status,
    }


def order(server: ServerProcess, model: str, what: str) -> int:
    return ask(server.http, "POST", f"/v2/repository/models/{model}/{what}").status


def test_a_followed_repository_without_a_model_is_not_ready_until_one_comes(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    server = start_server(folder, "--model-control-mode", "poll", "--repository-poll-secs", "1")
    assert readiness(server) == {400}
    assert ask(server.metrics, "GET", "/livez").status == 200
    assert ask(server.metrics, "GET", "/startupz").status == 200
    put(folder, "a", 1, 2)
    eventually(lambda: readiness(server) == {200}, limit_s=LIMIT_S, what="ready with its first model")


@pytest.mark.parametrize("strict", [[], ["--strict-readiness"]])
def test_a_server_that_waits_for_orders_is_ready_for_them(
    start_server: StartServer, tmp_path: Path, strict: list[str]
) -> None:
    folder = tmp_path / "models"
    put(folder, "a", 1, 2)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    server = start_server(folder, "--model-control-mode", "explicit", *strict)
    assert readiness(server) == {200}, "nothing has been asked for"
    assert order(server, "a", "load") == 200
    assert readiness(server) == {200}
    assert order(server, "a", "unload") == 200
    assert readiness(server) == {200}, "the last one went because somebody wanted it"
    assert order(server, "broken", "load") != 200
    # An order that failed must not cut the server off from the next one, unless every model has to be ready.
    assert readiness(server) == {400 if strict else 200}
