"""Connections that clients keep, and servers that end them: never under a request that is on its way."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests import graphs, rolling
from tests.conftest import STOP_LIMIT_S
from tests.raw_http import connected, head, read_answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

CLIENTS = 8
RESTARTS = 3
# Requests between two restarts.
PAUSE = 100
NOTICE = ("--drain-notice-ms", "300")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return graphs.write_all(tmp_path / "models", (rolling.MODEL,))


def test_rolling_restarts_lose_no_request_of_clients_that_keep_connections(
    start_server: StartServer, folder: Path
) -> None:
    server = start_server(folder, *NOTICE)
    with rolling.crowd([server.http], CLIENTS) as crowd:
        for _ in range(RESTARTS):
            crowd.wait_for(PAUSE)
            old, server = server, start_server(folder, *NOTICE)
            crowd.addresses.append(server.http)
            old.process.terminate()
            assert old.process.wait(STOP_LIMIT_S) == 0
        crowd.wait_for(PAUSE)
    assert crowd.lost() == 0, crowd.counts
    assert crowd.connections >= CLIENTS * (RESTARTS + 1)


def test_connections_that_are_old_end_between_two_requests(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--max-connection-age-s", "1")
    with rolling.crowd([server.http], CLIENTS) as crowd:
        while crowd.connections < 3 * CLIENTS and crowd.lost() == 0:
            crowd.wait_for(PAUSE)
    assert crowd.lost() == 0, crowd.counts


def test_a_client_that_closes_its_side_after_its_request_is_answered(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder)
    body, fields = rolling.SOUND.body()
    sized = head("POST", rolling.SOUND.target, {**fields, "content-length": str(len(body))})
    for _ in range(50):
        with connected(server.http) as opened:
            opened.sendall(sized + body)
            opened.shutdown(socket.SHUT_WR)
            answer = read_answer(opened)
            assert answer is not None
            assert answer.status == 200
            assert opened.recv(1) == b""
