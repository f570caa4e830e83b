"""Clients that dawdle, at every point of a request: each loses its connection or stream, and nobody else waits for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import h2.settings
import numpy as np
import pytest

from tests import graphs
from tests.conftest import eventually, serving
from tests.oracle import Oracle, metric, resident_bytes
from tests.raw_http import ask, connected, head, read_answer
from tests.raw_http2 import Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

# All short, and far apart, so that a test can tell which one was at work.
HEADER_S = 0.3
BODY_GRACE_S = 0.3
WRITE_S = 0.5
IDLE_S = 0.8
# How much later than its time the end of something may come.
LATE_S = 60.0
TARGET = "/v2/models/identity_FP32/infer"
# 24 MB for each of two outputs, as bytes over both transports.
BIG = Inference("large", [Tensor.of("count", np.array([6_000_000]), "INT64")], parameters={"binary_data_output": True})
BIG_BYTES = 40 << 20
# What loops keep of the budget so as not to ask for every request: two chunks each.
SLACK_BYTES = 8 << 20
READERS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32", "large"))
    times = {"header-timeout": HEADER_S, "body-grace": BODY_GRACE_S, "write-timeout": WRITE_S, "idle-timeout": IDLE_S}
    limits = [part for name, seconds in times.items() for part in (f"--{name}-ms", str(round(seconds * 1_000)))]
    with serving(tmp_path_factory.mktemp("servers")) as start:
        found = start(folder, *limits, "--min-body-rate", "10000")
        yield found
        oracle = Oracle(found)
        oracle.check_alive()
        oracle.check_neighbour()


def closed_after(opened: socket.socket, begun: float) -> float:
    """Waits until the server closes the connection; how long that took since `begun`."""
    try:
        while opened.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "start",
    [b"", b"G", b"PRI * HT", b"GET / HTTP/1.1\r\nhost:", b"GET / HTTP/1.1\r\nhost: a\r\n"],
    ids=["nothing", "a letter", "half a preface", "half a field", "no end"],
)
def test_a_header_that_does_not_come_closes_the_connection(server: ServerProcess, start: bytes) -> None:
    begun = time.monotonic()
    with connected(server.http) as opened:
        opened.sendall(start)
        assert HEADER_S * 0.9 <= closed_after(opened, begun) <= HEADER_S + LATE_S


def test_a_second_header_that_does_not_come_closes_the_connection(server: ServerProcess) -> None:
    with connected(server.http) as opened:
        opened.sendall(head("GET", "/v2/health/live"))
        assert read_answer(opened, "GET") is not None
        opened.sendall(b"GET /v2/he")
        assert closed_after(opened, time.monotonic()) <= HEADER_S + LATE_S


def test_an_idle_connection_is_closed(server: ServerProcess) -> None:
    with connected(server.http) as opened:
        begun = time.monotonic()
        opened.sendall(head("GET", "/v2/health/live"))
        assert read_answer(opened, "GET") is not None
        assert IDLE_S * 0.9 <= closed_after(opened, begun) <= IDLE_S + LATE_S


def test_an_idle_http2_connection_is_told_to_go_away(server: ServerProcess) -> None:
    with Http2Connection(server.grpc) as connection:
        connection.read_to_the_end()
    assert connection.goaway == 0


def test_a_body_that_stops_is_408(server: ServerProcess) -> None:
    with connected(server.http) as opened:
        opened.sendall(head("POST", TARGET, {"content-length": "100000"}) + b"{")
        answer = read_answer(opened)
    assert answer is not None
    assert (answer.status, answer.headers["mlserve-code"]) == (408, "slow_client")


def test_a_body_that_trickles_is_408_although_it_never_stops(server: ServerProcess) -> None:
    with connected(server.http) as opened:
        opened.sendall(head("POST", TARGET, {"content-length": "100000"}))
        opened.settimeout(0.02)
        answer = b""
        begun = time.monotonic()
        while not answer and time.monotonic() - begun < LATE_S:
            opened.sendall(b" ")
            try:
                answer = opened.recv(1 << 16)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_message_that_stops_is_deadline_exceeded(server: ServerProcess) -> None:
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers())
        connection.send(stream, framed(bytes(100))[:50], end=False)
        answer = connection.answer(stream)
    assert (answer.grpc_status, answer.code) == (4, "slow_client")


def test_a_message_within_a_stream_that_stops_ends_the_stream(server: ServerProcess) -> None:
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers("/inference.GRPCInferenceService/ModelStreamInfer"))
        connection.send(stream, framed(bytes(100))[:50], end=False)
        answer = connection.answer(stream)
    assert (answer.grpc_status, answer.code) == (4, "slow_client")


def test_a_stream_without_a_message_may_stay_open(server: ServerProcess) -> None:
    sound = Inference("identity_FP32", [Tensor("x", "FP32", (1, 1), bytes(4))]).message()
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers("/inference.GRPCInferenceService/ModelStreamInfer"))
        connection.socket.settimeout(IDLE_S * 1.5)
        with pytest.raises(TimeoutError):
            connection.answer(stream)
        connection.socket.settimeout(LATE_S)
        connection.send(stream, framed(sound))
        answer = connection.answer(stream)
    assert (answer.grpc_status, len(answer.messages())) == (0, 1)


def slow_readers(server: ServerProcess, stack: ExitStack, count: int) -> None:
    """Asks for megabytes and reads none of them."""
    for index in range(count):
        if index % 2:
            # Windows of zero bytes: not even the connection's buffers fill.
            connection = stack.enter_context(
                Http2Connection(server.grpc, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
            )
            stream = connection.open(grpc_headers())
            connection.send(stream, framed(BIG.message()))
        else:
            opened = stack.enter_context(connected(server.http))
            body, fields = BIG.body()
            opened.sendall(head("POST", BIG.target, {**fields, "content-length": str(len(body))}) + body)


def test_readers_that_never_read_are_cut_off_and_their_bytes_come_back(server: ServerProcess) -> None:
    held = metric(server, "mlserve_budget_bytes")
    with ExitStack() as stack:
        slow_readers(server, stack, READERS)
        eventually(
            lambda: metric(server, "mlserve_budget_bytes") > held + BIG_BYTES,
            limit_s=LATE_S,
            what="answers that nobody reads to be charged",
        )
        Oracle(server).check_neighbour()
        eventually(
            lambda: metric(server, "mlserve_budget_bytes") <= held + SLACK_BYTES,
            limit_s=WRITE_S + 2 * LATE_S,
            what="the bytes of readers that never read to come back",
        )


def test_memory_of_answers_that_nobody_read_goes_back_to_the_system(server: ServerProcess) -> None:
    with ExitStack() as stack:
        slow_readers(server, stack, READERS)
        eventually(lambda: metric(server, "mlserve_budget_bytes") > BIG_BYTES, limit_s=LATE_S, what="answers")
    eventually(lambda: resident_bytes(server) < 150e6, limit_s=LATE_S, what="memory of an idle server")


def test_hundreds_of_slow_headers_hold_up_nobody(server: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(server.http)).sendall(b"POST ")
        assert ask(server.http, "GET", "/v2/health/ready").status == 200
    eventually(lambda: metric(server, "mlserve_connections") == 0, limit_s=LATE_S, what="no connections")
