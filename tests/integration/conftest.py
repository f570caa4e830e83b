"""Servers that are watched: whatever a module's tests send, they must be found as they were. And shared memory for one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.conftest import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.conftest import ServerProcess
    from tests.oracle import Oracle
    from tests.regions import MakeRegion


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


@pytest.fixture(scope="module")
def region_server(tmp_path_factory: pytest.TempPathFactory, graph_folder: Path) -> Iterator[ServerProcess]:
    """A server of test graphs that trusts the clients of this machine."""
    with serving(tmp_path_factory.mktemp("regions")) as start:
        yield start(graph_folder, "--allow-client-shm")


@pytest.fixture
def make_region() -> Iterator[MakeRegion]:
    """Makes shared memory objects that end with the test."""
    from tests.regions import region  # noqa: PLC0415 -- tritonclient takes long to import

    with ExitStack() as stack:
        yield lambda byte_size: stack.enter_context(region(byte_size))


@pytest.fixture(params=["grpc", "http"])
def region_client(request: pytest.FixtureRequest, region_server: ServerProcess) -> Iterator[Any]:
    """Each of tritonclient's clients in turn; nothing is registered before or after."""
    from tests.regions import MODULES  # noqa: PLC0415 -- as above

    with MODULES[request.param].InferenceServerClient(getattr(region_server, request.param)) as client:
        client.unregister_system_shared_memory()
        yield client
        client.unregister_system_shared_memory()
