"""What senders of unfinished bodies hold of the byte budget: what they have sent, within a share, for a time that fits its size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests import graphs
from tests.conftest import eventually, serving
from tests.oracle import Oracle, metric
from tests.raw_http import connected, head, open_socket, read_answer
from tests.raw_http2 import Http2Connection, framed, grpc_headers

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

TARGET = "/v2/models/identity_FP32/infer"
BODY = 4 << 20
BUDGET = 32 << 20
GRACE_S = 0.3
# At 1 MB/s 64 KiB earn little, and the rest has to come 256 times as fast.
RATE = 1_000_000
LIMITS = ("--byte-budget", str(BUDGET), "--max-body-bytes", str(BODY), "--event-loops", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    with serving(tmp_path_factory.mktemp("servers")) as start:
        found = start(folder, *LIMITS)
        yield found
        Oracle(found).check_alive()


def held(server: ServerProcess) -> float:
    return metric(server, "mlserve_budget_bytes")


@pytest.mark.parametrize("first", [b"", b"x" * 1_000], ids=["heads alone", "a little of each body"])
def test_what_a_header_announces_is_not_held(server: ServerProcess, first: bytes) -> None:
    before = held(server)
    with ExitStack() as stack:
        for _ in range(100):
            opened = stack.enter_context(connected(server.http))
            opened.sendall(head("POST", TARGET, {"content-length": str(BODY)}) + first)
        Oracle(server).check_neighbour()
        # What loops draw at once, and twice what was sent.
        assert held(server) - before <= (8 << 20) + 200 * len(first)


def test_a_connection_holds_its_share_of_unfinished_messages_and_no_more(server: ServerProcess) -> None:
    with Http2Connection(server.grpc) as connection:
        streams = [connection.open(grpc_headers()) for _ in range(12)]
        for stream in streams:
            connection.send(stream, framed(bytes(1 << 20))[:-1], end=False)
        refused = connection.answer(streams[-1])
        assert (refused.grpc_status, refused.code) == (14, "out_of_budget")
        assert "share" in refused.grpc_text
        Oracle(server).check_neighbour()
    eventually(lambda: held(server) <= 8 << 20, limit_s=10, what="the budget is given back")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    paces = ("--body-grace-ms", str(round(GRACE_S * 1_000)), "--min-body-rate", str(RATE))
    with serving(tmp_path_factory.mktemp("servers")) as start:
        yield start(folder, *LIMITS, *paces)


def test_a_large_body_that_came_fast_cannot_rest(strict: ServerProcess) -> None:
    with open_socket(strict.http) as opened:
        opened.sendall(head("POST", TARGET, {"content-length": str(BODY)}) + b"x" * (BODY - 1))
        begun = time.monotonic()
        answer = read_answer(opened)
    assert answer is not None
    assert (answer.status, answer.headers["mlserve-code"]) == (408, "slow_client")
    # Four seconds at the least rate alone; the test is that this many are not given.
    assert time.monotonic() - begun < BODY / RATE
