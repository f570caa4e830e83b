"""The end of a server: notice, drain, exit 0; nothing in flight is lost, and each further signal hastens."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from tests import slow_model
from tests.conftest import STOP_LIMIT_S, ServerProcess, eventually
from tests.oracle import metric
from tests.raw_http import ask, connected, head, read_answer
from tests.raw_http2 import INFER, Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

NO_NOTICE = ("--drain-notice-ms", "0")
LONG = ("--drain-notice-ms", "60000", "--drain-timeout-ms", "60000")
# About how long a run lasts that must survive, and one that is cut off.
RUN_S = 0.6
CUT_S = 6.0
ANSWER_LIMIT_S = 60.0
SOUND = Inference("identity_FP32", [Tensor.of("x", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32")])


def is_ready(server: ServerProcess) -> bool:
    return ask(server.http, "GET", "/v2/health/ready").status == 200


def turns(folder: Path, seconds: float) -> int:
    return slow_model.turns_for(folder / "slow" / "1" / "model.onnx", seconds)


class SlowCall:
    """A slow inference under way over gRPC or HTTP."""

    def __init__(self, server: ServerProcess, protocol: str, count: int) -> None:
        self.protocol = protocol
        inference = slow_model.inference(count)
        if protocol == "grpc":
            self.connection = Http2Connection(server.grpc)
            self.stream = self.connection.open(grpc_headers())
            self.connection.send(self.stream, framed(inference.message()))
        else:
            self.opened = connected(server.http)
            self.socket = self.opened.__enter__()
            body, fields = inference.body()
            data = head("POST", inference.target, {**fields, "content-length": str(len(body))}) + body
            self.socket.sendall(data)
        eventually(
            lambda: metric(server, "mlserve_inflight_requests", model="slow") == 1, limit_s=5, what="the run begins"
        )

    def succeeded(self) -> bool:
        """Waits for the answer."""
        if self.protocol == "grpc":
            with self.connection:
                while not self.connection.answers[self.stream].body and self.connection.goaway is None:
                    self.connection.receive()
                # The library reads nothing after a GOAWAY; the frames say it all the same.
                return bool(self.connection.answers[self.stream].body) or self.answered_after_goaway()
        answer = read_answer(self.socket)
        self.opened.__exit__(None, None, None)
        return answer is not None and answer.status == 200

    def answered_after_goaway(self) -> bool:
        received = b""
        try:
            while b"slow" not in received:
                piece = self.connection.socket.recv(1 << 16)
                if not piece:
                    return False
                received += piece
        except ConnectionResetError:
            return False
        return True


def test_notice_comes_before_the_end_and_is_served(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", "--drain-notice-ms", "800")
    assert is_ready(server)
    begun = time.monotonic()
    server.process.terminate()
    eventually(lambda: not is_ready(server), limit_s=5, what="not ready")
    body, fields = SOUND.body()
    assert ask(server.http, "GET", "/v2/health/live").status == 200
    assert ask(server.http, "GET", "/v2/models/identity_FP32/ready").status == 400
    # A connection that is made now, because its balancer has not noticed yet.
    assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
    assert server.process.wait(STOP_LIMIT_S) == 0
    assert time.monotonic() - begun >= 0.8


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_is_in_flight_is_answered(start_server: StartServer, graph_folder: Path, protocol: str) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS, *NO_NOTICE)
    call = SlowCall(server, protocol, turns(graph_folder, RUN_S))
    server.process.terminate()
    assert call.succeeded()
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_a_connection_is_told_to_go_away(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", *NO_NOTICE)
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers())
        connection.send(stream, framed(SOUND.message()))
        assert connection.answer(stream).grpc_status == 0
        server.process.terminate()
        connection.read_to_the_end()
        assert connection.goaway == 0
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_an_idle_kept_connection_is_closed(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", *NO_NOTICE)
    with connected(server.http) as opened:
        opened.sendall(head("GET", "/v2/health/live"))
        assert read_answer(opened, "GET") is not None
        server.process.terminate()
        assert opened.recv(1) == b""
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_an_open_stream_ends_as_draining_after_its_answers(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", *NO_NOTICE)
    with grpc.insecure_channel(server.grpc) as channel:
        release = threading.Event()

        def messages() -> Iterator[bytes]:
            yield SOUND.message()
            release.wait()

        method: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        call = method(messages())
        assert SOUND.inputs[0].data in next(call)
        server.process.terminate()
        with pytest.raises(grpc.RpcError):
            next(call)
        release.set()
        assert call.code() == grpc.StatusCode.UNAVAILABLE
        assert ("mlserve-code", "draining") in [tuple(item) for item in call.trailing_metadata()]
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_every_message_of_a_stream_that_was_received_is_answered(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", *NO_NOTICE)
    message, sent, wanted = framed(SOUND.message()), 0, 200
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers("/inference.GRPCInferenceService/ModelStreamInfer"))
        answer = connection.answers[stream]
        # Eight are under way at any time, until the server says that it goes.
        while connection.goaway is None:
            while sent < len(answer.messages()) + 8:
                connection.h2.send_data(stream, message)
                sent += 1
            connection.flush()
            if sent >= wanted:
                server.process.terminate()
                wanted = 1 << 60
            connection.receive()
        connection.answer(stream)
        assert answer.grpc_status == 14
        assert len(answer.messages()) == sent
        assert all(SOUND.inputs[0].data in found for found in answer.messages())
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_a_stream_that_never_rests_ends_before_the_drain_does(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", *NO_NOTICE, "--drain-timeout-ms", "1000")
    message = framed(SOUND.message())
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers("/inference.GRPCInferenceService/ModelStreamInfer"))
        answer, has_begun = connection.answers[stream], False
        while not answer.has_ended:
            if connection.goaway is None:
                connection.h2.send_data(stream, message)
                connection.flush()
            else:
                connection.socket.sendall(
                    bytes([0, len(message) >> 8, len(message) & 255, 0, 0, 0, 0, 0, stream]) + message
                )
            connection.receive()
            if not has_begun:
                server.process.terminate()
                has_begun = True
        assert answer.grpc_status == 14
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_a_second_signal_cuts_the_notice_short(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS, *LONG)
    call = SlowCall(server, "http", turns(graph_folder, RUN_S))
    server.process.terminate()
    eventually(lambda: not is_ready(server), limit_s=5, what="not ready")
    server.process.terminate()
    assert call.succeeded()
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_a_third_signal_cuts_the_drain_short(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS, *LONG)
    count = turns(graph_folder, CUT_S)
    call = SlowCall(server, "http", count)
    server.process.terminate()
    eventually(lambda: not is_ready(server), limit_s=5, what="not ready")
    server.process.terminate()
    eventually(lambda: not accepts(server), limit_s=5, what="closing")
    server.process.terminate()
    assert not call.succeeded()
    # The run itself cannot be stopped; the process ends with it at the latest.
    assert server.process.wait(STOP_LIMIT_S) == 0


def accepts(server: ServerProcess) -> bool:
    try:
        with connected(server.http) as opened:
            opened.sendall(head("GET", "/v2/health/live"))
            return read_answer(opened, "GET") is not None
    except (ConnectionRefusedError, ConnectionResetError):
        return False


def test_an_interrupt_drains_without_notice(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS, *LONG)
    call = SlowCall(server, "grpc", turns(graph_folder, RUN_S))
    server.process.send_signal(signal.SIGINT)
    assert call.succeeded()
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_the_drain_timeout_cuts_off_what_takes_too_long(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS, *NO_NOTICE, "--drain-timeout-ms", "300")
    call = SlowCall(server, "http", turns(graph_folder, CUT_S))
    server.process.terminate()
    assert not call.succeeded()
    assert server.process.wait(STOP_LIMIT_S) == 0


Call = Callable[[], None]
Make = Callable[[list[ServerProcess]], AbstractContextManager[Call]]


@contextmanager
def grpc_caller(servers: list[ServerProcess]) -> Iterator[Call]:
    """Calls through a channel that balances over both servers, without a retry policy."""
    target = "ipv4:" + ",".join(server.grpc for server in servers)
    message = SOUND.message()
    with grpc.insecure_channel(target, [("grpc.lb_policy_name", "round_robin")]) as channel:
        call: Any = channel.unary_unary(INFER)

        def ask_once() -> None:
            assert call(message, timeout=ANSWER_LIMIT_S).endswith(SOUND.inputs[0].data)

        yield ask_once


@contextmanager
def http_caller(servers: list[ServerProcess]) -> Iterator[Call]:
    """Keeps its connection while the server does; goes on to the next server when it is hung up on."""
    body, fields = SOUND.body()
    kept: list[http.client.HTTPConnection] = []
    addresses = [server.http for server in servers]

    def ask_once() -> None:
        for address in addresses * 2:
            connection = kept.pop() if kept else http.client.HTTPConnection(address, timeout=ANSWER_LIMIT_S)
            try:
                connection.request("POST", SOUND.target, body, fields)
                response = connection.getresponse()
                found = response.read()
            except (ConnectionError, http.client.RemoteDisconnected):
                # Hung up before a byte of the answer: sent again, as any client with kept connections has to.
                connection.close()
                continue
            assert response.status == 200, found
            kept.append(connection)
            return
        pytest.fail("no server answered")

    yield ask_once
    for connection in kept:
        connection.close()


@pytest.mark.parametrize("make", [grpc_caller, http_caller])
def test_no_request_fails_while_one_of_two_servers_is_stopped(
    start_server: StartServer, graph_folder: Path, make: Make
) -> None:
    servers = [start_server(graph_folder / "identity_FP32", "--drain-notice-ms", "300") for _ in range(2)]
    stopped = threading.Event()
    counts = [0] * 4

    def keep_asking(index: int) -> None:
        with make(servers if index % 2 else servers[::-1]) as ask_once:
            while not stopped.is_set():
                ask_once()
                counts[index] += 1

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(keep_asking, index) for index in range(4)]

        def have_asked(more: int, since: list[int]) -> bool:
            for caller in callers:
                if caller.done():
                    caller.result()
            return all(now > then + more for now, then in zip(counts, since, strict=True))

        try:
            eventually(lambda: have_asked(50, [0] * 4), limit_s=10, what="load on both servers")
            assert servers[0].stop() == 0
            before = list(counts)
            eventually(lambda: have_asked(50, before), limit_s=10, what="load on the server that is left")
        finally:
            stopped.set()
        for caller in callers:
            caller.result()
    assert servers[1].stop() == 0


def test_an_old_http2_connection_is_told_to_go_away(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", "--max-connection-age-s", "1")
    with Http2Connection(server.grpc) as connection:
        while connection.goaway is None:
            stream = connection.open(grpc_headers())
            connection.send(stream, framed(SOUND.message()))
            found = connection.answers[stream]
            while not found.has_ended and connection.goaway is None:
                connection.receive()
        connection.read_to_the_end()
        assert connection.goaway == 0


def test_an_old_http1_connection_is_closed_after_an_answer(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "identity_FP32", "--max-connection-age-s", "1")
    begun = time.monotonic()
    with connected(server.http) as opened:
        is_open = True
        while is_open:
            opened.sendall(head("GET", "/v2/health/live"))
            answer = read_answer(opened, "GET")
            is_open = answer is not None and answer.headers.get("connection") != "close"
    assert time.monotonic() - begun >= 0.8
