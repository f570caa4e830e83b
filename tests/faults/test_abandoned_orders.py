"""Orders to load and unload whose callers leave before they begin: nobody carries them out, whatever way they came."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import head, open_socket
from tests.raw_http2 import Http2Connection, framed, grpc_headers
from tests.repositories import answer, index, load, put

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

LIMIT_S = 5
RPC = "/inference.GRPCInferenceService/RepositoryModel"
LIVE = "/inference.GRPCInferenceService/ServerLive"
# What is decoded on another thread.
LARGE_BYTES = 200_000
# More requests than are read ahead.
MANY = 200
CANCEL = 8
NO_LENGTH = {"content-length": "0"}

Way: TypeAlias = Callable[[ExitStack, "ServerProcess", str, str], None]


def order(name: str, ballast: int = 0) -> bytes:
    """The message of a load or unload; `ballast`: bytes of a field that nobody knows."""
    message = b"\x12" + bytes([len(name)]) + name.encode()
    length = bytes([ballast & 127 | 128, ballast >> 7 & 127 | 128, ballast >> 14])
    return framed(message + (b"\x7a" + length + bytes(ballast) if ballast else b""))


def settle(connection: Http2Connection) -> None:
    """Returns when the server has read everything and its tasks have had their turns."""
    for _ in range(20):
        stream = connection.open(grpc_headers(LIVE))
        connection.send(stream, framed(b""))
        assert connection.answer(stream).grpc_status == 0


def reset(stack: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """A gRPC call that is cancelled while it waits."""
    connection = stack.enter_context(Http2Connection(server.grpc))
    stream = connection.open(grpc_headers(f"{RPC}{verb.title()}"))
    connection.send(stream, order(name))
    settle(connection)
    connection.h2.reset_stream(stream, CANCEL)
    settle(connection)


def reset_at_once(stack: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """A gRPC call whose cancellation comes with it."""
    connection = stack.enter_context(Http2Connection(server.grpc))
    stream = connection.h2.get_next_available_stream_id()
    connection.h2.send_headers(stream, grpc_headers(f"{RPC}{verb.title()}"))
    connection.h2.send_data(stream, order(name), end_stream=True)
    connection.h2.reset_stream(stream, CANCEL)
    connection.flush()
    settle(connection)


def large_reset(stack: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """A gRPC call whose message is read on another thread."""
    connection = stack.enter_context(Http2Connection(server.grpc))
    stream = connection.open(grpc_headers(f"{RPC}{verb.title()}"))
    connection.send(stream, order(name, LARGE_BYTES if verb == "load" else 0))
    settle(connection)
    connection.h2.reset_stream(stream, CANCEL)
    settle(connection)


def reset_rest(stack: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """A REST call over HTTP/2 that is cancelled."""
    connection = stack.enter_context(Http2Connection(server.http))
    path = f"/v2/repository/models/{name}/{verb}"
    first = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    stream = connection.open(first, end=True)
    settle(connection)
    connection.h2.reset_stream(stream, CANCEL)
    settle(connection)


def grpc_lost(_: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """A gRPC call whose connection is gone."""
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers(f"{RPC}{verb.title()}"))
        connection.send(stream, order(name))
        settle(connection)


def closed(_: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """An HTTP/1.1 request whose caller closes."""
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", f"/v2/repository/models/{name}/{verb}", NO_LENGTH))


def lost(_: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """An HTTP/1.1 request whose connection is reset."""
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", f"/v2/repository/models/{name}/{verb}", NO_LENGTH))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def pipelined(_: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """HTTP/1.1 requests one behind the other, whose caller closes."""
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", f"/v2/repository/models/{name}/{verb}", NO_LENGTH) * 2)


def pipelined_many(_: ExitStack, server: ServerProcess, verb: str, name: str) -> None:
    """More of them than are read ahead."""
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", f"/v2/repository/models/{name}/{verb}", NO_LENGTH) * MANY)


# Their connections are there when the orders are not wanted any more.
STAYING = [reset, reset_at_once, large_reset, reset_rest]
WAYS = [*STAYING, grpc_lost, closed, lost, pipelined, pipelined_many]


@contextmanager
def held(server: ServerProcess, file: Path) -> Iterator[None]:
    """Keeps the manager busy with loading `busy` for somebody who waits."""
    file.touch()
    try:
        with open_socket(server.http) as opened:
            opened.sendall(head("POST", "/v2/repository/models/busy/load", NO_LENGTH))
            loading = ("LOADING", "")
            eventually(lambda: index(server).get(("busy", "1")) == loading, limit_s=LIMIT_S, what="the load begins")
            yield
            file.unlink()
            assert opened.recv(1 << 12).startswith(b"HTTP/1.1 200 ")
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.parametrize("way", WAYS)
def test_an_order_whose_caller_left_is_not_carried_out(start_server: StartServer, tmp_path: Path, way: Way) -> None:
    folder, file = tmp_path / "models", tmp_path / "held"
    for number, name in enumerate(("kept", "busy", "wanted", "honest"), 2):
        put(folder, name, 1, number)
    flags = ("--model-control-mode", "explicit", "--load-models", "kept")
    server = start_server(folder, *flags, env={"FAILPOINTS": f"load block while {file}"})
    with ExitStack() as stack, held(server, file):
        way(stack, server, "load", "wanted")
        way(stack, server, "unload", "kept")
        way(stack, server, "load", "wanted")
        # Besides the one that waits for `busy`.
        kept = 1 + 3 * (way in STAYING)
        eventually(lambda: metric(server, "mlserve_connections") == kept, limit_s=LIMIT_S, what="who left is missed")
    assert load(server, "honest").status == 200
    assert answer(server, "kept") == (2, "1")
    assert index(server)["wanted", ""] == ("", ""), index(server)
    assert metric(server, "mlserve_model_loads_total", model="wanted", outcome="ok") == 0
