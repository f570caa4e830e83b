"""A crowd of connections that has left leaves no memory behind."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.conftest import EXAMPLE_MODELS, eventually
from tests.oracle import metric, resident_bytes
from tests.raw_http import connected, head, read_answer

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

CROWD = 2_000
# For the crowd, and for what else a process has open.
DESCRIPTORS = 2 * CROWD + 500
LIMIT_S = 30.0


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many open files as the crowd needs, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"a process may open {hard} files; the crowd needs {DESCRIPTORS}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_the_memory_of_a_crowd_goes_back_when_it_has_left(start_server: StartServer) -> None:
    server = start_server(EXAMPLE_MODELS, "--max-connections", str(2 * CROWD))
    before = resident_bytes(server)
    with ExitStack() as stack:
        for _ in range(CROWD):
            opened = stack.enter_context(connected(server.http))
            opened.sendall(head("GET", "/v2/health/live"))
            assert read_answer(opened, "GET") is not None
        assert metric(server, "mlserve_connections") == CROWD
        crowded = resident_bytes(server)
    assert crowded > before
    # Half of it: what else goes up and down meanwhile is less.
    enough = before + (crowded - before) // 2
    eventually(lambda: resident_bytes(server) <= enough, limit_s=LIMIT_S, what=f"{before}, {crowded}, then {enough}")
