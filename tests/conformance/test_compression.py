"""Gzip and deflate, both ways, through foreign clients; what comes back is the same as without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conformance.triton_clients import CLIENTS, Asked
from tests.reference import assert_same_bits

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

# aiohttp would rather have a file for bodies above a megabyte; the foreign client sends bytes.
pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

ALGORITHMS = ["gzip", "deflate"]
# From a single element, over what is worked on at once, to what leaves the event loop.
COLUMNS = [1, 3_000, 100_000]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("client", ["grpc", "grpc_aio"])
def test_grpc_messages_are_compressed_per_call(
    graph_server: ServerProcess, client: str, algorithm: str, columns: int
) -> None:
    array = np.arange(2 * columns, dtype=np.int32).reshape(2, columns)
    asked = Asked("identity_INT32", {"x": array}, {"x": "INT32"}, options={"compression_algorithm": algorithm})
    assert_same_bits(CLIENTS[client](graph_server.grpc, asked).arrays["y"], array, "y")


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("answer", [None, *ALGORITHMS])
@pytest.mark.parametrize("request_algorithm", [None, *ALGORITHMS])
@pytest.mark.parametrize("client", ["http", "http_aio"])
def test_http_bodies_are_compressed_either_way(
    graph_server: ServerProcess,
    client: str,
    request_algorithm: str | None,
    answer: str | None,
    binary: bool,  # noqa: FBT001 -- a parameter of the test
    columns: int,
) -> None:
    array = np.arange(2 * columns, dtype=np.int32).reshape(2, columns)
    options = {"request_compression_algorithm": request_algorithm, "response_compression_algorithm": answer}
    asked = Asked("identity_INT32", {"x": array}, {"x": "INT32"}, outputs=["y"], binary=binary, options=options)
    assert_same_bits(CLIENTS[client](graph_server.http, asked).arrays["y"], array, "y")
