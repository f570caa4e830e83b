"""Probes are answered whatever else the metrics port, or the process, is made to do."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.conftest import EXAMPLE_MODELS
from tests.oracle import metric
from tests.raw_http import ask, connected, head

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

# More than the port has places.
GREEDY = 200
PROBES = ("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready")
# Opens what a process may open, in the process that serves; prints the status of three probes, then of a request.
WITHOUT_DESCRIPTORS = """
import os, resource, socket, sys
from mlserve import Server

def status(opened, address, target):
    host, port = address.removeprefix("http://").split("/")[0].rsplit(":", 1)
    opened.settimeout(15)
    opened.connect((host, int(port)))
    opened.sendall(f"GET {target} HTTP/1.1\\r\\nhost: t\\r\\nconnection: close\\r\\n\\r\\n".encode())
    return opened.recv(12).decode()

resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with Server(sys.argv[1]) as server:
    sockets = [socket.socket() for _ in range(4)]
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for opened in sockets[:3]:
        print(status(opened, server.metrics_url, "/livez"))
        opened.close()
        # The one that has come free is taken as well.
        held.append(os.open("/dev/null", os.O_RDONLY))
    for number in held:
        os.close(number)
    print(status(sockets[3], server.http_url, "/v2/health/live"))
"""


def assert_probes_are_answered(server: ServerProcess) -> None:
    for target in PROBES:
        assert ask(server.metrics, "GET", target).status == 200


def test_probes_are_answered_beside_clients_that_ask_ahead_and_do_not_read(example_server: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(GREEDY):
            opened = stack.enter_context(connected(example_server.metrics))
            opened.settimeout(0)
            with suppress(BlockingIOError, ConnectionError):
                while True:
                    opened.send(head("GET", "/metrics") * 100)
        assert_probes_are_answered(example_server)
    assert_probes_are_answered(example_server)


def test_scrapers_at_once_get_whole_texts(example_server: ServerProcess) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(example_server.metrics)) for _ in range(32)]
        for scraper in opened:
            scraper.sendall(head("GET", "/metrics", {"connection": "close"}))
        assert_probes_are_answered(example_server)
        for scraper in opened:
            text = b"".join(iter(partial(scraper.recv, 1 << 16), b""))
            assert text.startswith(b"HTTP/1.1 200 ")
            assert b"mlserve_build_info" in text


def test_a_scrape_sees_what_was_answered_before_it(example_server: ServerProcess) -> None:
    def accepted() -> float:
        return metric(example_server, "mlserve_connections_accepted_total")

    before = accepted()
    ask(example_server.http, "GET", "/v2/health/live")
    assert accepted() > before


def test_probes_are_answered_without_a_free_descriptor() -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, str(EXAMPLE_MODELS)]
    printed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert printed.stdout.splitlines() == ["HTTP/1.1 200"] * 4, printed.stderr
