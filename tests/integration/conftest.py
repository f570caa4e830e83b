"""Servers that are watched: whatever a module's tests send, they must be found as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import ServerProcess
    from tests.oracle import Oracle


@pytest.fixture(scope="module")
def oracle(graph_server: ServerProcess) -> Iterator[Oracle]:
    """Checks after the module that the server lives, answers rightly, has not panicked, and gave memory back."""
    from tests.oracle import Oracle as Watch  # noqa: PLC0415 -- needs the extension

    watch = Watch(graph_server)
    yield watch
    watch.check()


@pytest.fixture
def attacked(graph_server: ServerProcess, oracle: Oracle) -> Iterator[ServerProcess]:
    """The server of test graphs, whose life is checked after each test."""
    yield graph_server
    oracle.check_alive()
