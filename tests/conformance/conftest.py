"""What conformance tests ask with: a foreign client, and the port that it expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.triton_clients import CLIENTS, Asked, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import ServerProcess


@pytest.fixture(params=list(CLIENTS))
def ask(request: pytest.FixtureRequest, graph_server: ServerProcess) -> Callable[[Asked], Reply]:
    """Asks the server of test graphs through each client in turn."""
    name: str = request.param
    address = graph_server.http if name.startswith("http") else graph_server.grpc
    return lambda asked: CLIENTS[name](address, asked)
