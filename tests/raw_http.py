"""HTTP/1.1 as bytes on a socket: for requests that no well-behaved client would send."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

# No test waits longer for bytes; a server that says nothing for so long has failed.
READ_LIMIT_S = 90.0


@dataclass(frozen=True)
class HttpAnswer:
    """An answer, its header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The text of an error; fails if the body is not the JSON that clients parse."""
        found = json.loads(self.body)
        assert list(found) == ["error"], found
        assert isinstance(found["error"], str)
        return found["error"]

    @property
    def json(self) -> dict[str, Any]:
        """The JSON part of the body, before binary tensors if there are any."""
        length = int(self.headers.get("inference-header-content-length", len(self.body)))
        found: dict[str, Any] = json.loads(self.body[:length])
        return found


def open_socket(address: str) -> socket.socket:
    """A connection to `host:port`, or to the Unix socket `unix:path`."""
    if address.startswith("unix:"):
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(READ_LIMIT_S)
        opened.connect(address.removeprefix("unix:"))
        return opened
    host, _, port = address.rpartition(":")
    opened = socket.create_connection((host, int(port)), timeout=READ_LIMIT_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A connection that ends with the block."""
    with open_socket(address) as opened:
        yield opened


def head(method: str, target: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a request."""
    fields = {"host": "localhost", **(headers or {})}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read_answer(opened: socket.socket, method: str = "POST") -> HttpAnswer | None:
    """Reads one answer; `None` if the server closed the connection without one."""
    response = http.client.HTTPResponse(opened, method=method)
    try:
        response.begin()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return None
    finally:
        response.close()
    return HttpAnswer(response.status, headers, body)


def exchange(address: str, data: bytes, method: str = "POST") -> HttpAnswer | None:
    """Sends bytes on a connection of their own and reads one answer."""
    with connected(address) as opened:
        # The server may refuse before it has read everything; its answer is there all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            opened.sendall(data)
        return read_answer(opened, method)


def ask(
    address: str, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """One well-formed request on a connection of its own."""
    sized = {"content-length": str(len(body))} if method == "POST" else {}
    answer = exchange(address, head(method, target, {**sized, "connection": "close", **(headers or {})}) + body, method)
    assert answer is not None, f"{method} {target}: the connection was closed without an answer"
    return answer
