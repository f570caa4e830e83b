"""Twenty rolling restarts under 32 clients that keep their connections; `make rolling` runs this. Takes minutes, so it is
not part of `make test`, which has a smaller one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import graphs, rolling
from tests.conftest import STOP_LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

CLIENTS = 32
RESTARTS = 20
PAUSE = 500
FLAGS = ("--drain-notice-ms", "500", "--max-connection-age-s", "3")


def test_no_request_is_lost(start_server: StartServer, tmp_path: Path) -> None:
    folder = graphs.write_all(tmp_path / "models", (rolling.MODEL,))
    server = start_server(folder, *FLAGS)
    with rolling.crowd([server.http], CLIENTS) as crowd:
        for _ in range(RESTARTS):
            crowd.wait_for(PAUSE)
            old, server = server, start_server(folder, *FLAGS)
            crowd.addresses.append(server.http)
            old.process.terminate()
            assert old.process.wait(STOP_LIMIT_S) == 0
        crowd.wait_for(PAUSE)
    print(f"{crowd.counts['200']} answers over {crowd.connections} connections, {crowd.lost()} lost")  # noqa: T201 -- the figures that the target is run for
    assert crowd.lost() == 0, crowd.counts
