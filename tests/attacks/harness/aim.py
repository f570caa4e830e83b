"""What an attack gets and what it gives back; and single requests whose outcome is one word."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tests.raw_http import HttpAnswer, exchange, head
from tests.raw_http2 import INFER, Ended, Http2Connection, framed, grpc_headers

if TYPE_CHECKING:
    from tests.raw_http2 import Http2Answer
    from tests.requests_by_hand import Inference


@dataclass(frozen=True)
class Aim:
    """A server to attack.

    Attributes:
        http: `host:port`, as the others.
        pid: Its process.
        folder: Its model repository.
        size: How much the attack is to do, in its own unit.
    """

    http: str
    grpc: str
    metrics: str
    pid: int
    folder: Path
    size: int


@dataclass
class Tally:
    """What an attack has done.

    Attributes:
        sent_bytes: Everything that it wrote.
        held_bytes: The most that it had sent and not had answered, at once.
        declared_bytes: Tensors that those requests declared, both ways, at once: what the server may rightly hold.
        outcomes: How its requests ended: `ok`, a code of the error table, `closed`, `no answer`.
    """

    requests: int = 0
    sent_bytes: int = 0
    held_bytes: int = 0
    declared_bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, sent_bytes: int, declared_bytes: int = 0) -> None:
        """One request that was sent alone."""
        self.requests += 1
        self.outcomes[outcome] += 1
        self.sent_bytes += sent_bytes
        self.held_bytes = max(self.held_bytes, sent_bytes)
        self.declared_bytes = max(self.declared_bytes, declared_bytes)


Attack: TypeAlias = Callable[[Aim], Tally]


def http_outcome(address: str, method: str, target: str, body: bytes = b"", **fields: str) -> str:
    """Sends one HTTP/1.1 request on a connection of its own."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return raw_outcome(address, head(method, target, {"content-length": str(len(body)), **named}) + body, method)


def raw_outcome(address: str, data: bytes, method: str = "POST") -> str:
    """Sends these bytes on a connection of their own."""
    try:
        return word_of_http(exchange(address, data, method))
    except TimeoutError:
        return "no answer"
    except OSError:
        return "closed"


def word_of_http(answer: HttpAnswer | None) -> str:
    """`ok`, the code of an error, or `closed`."""
    if answer is None:
        return "closed"
    return "ok" if answer.status == 200 else answer.headers.get("mlserve-code", str(answer.status))


def grpc_outcome(address: str, message: bytes, path: str = INFER, *, is_compressed: bool = False) -> str:
    """Makes one unary call on a connection of its own; `message` is given as it travels, compressed or not."""
    encoding = {"grpc_encoding": "gzip"} if is_compressed else {}
    try:
        with Http2Connection(address) as connection:
            stream = connection.open(grpc_headers(path, **encoding))
            connection.send(stream, framed(message, is_compressed=is_compressed))
            return word_of_grpc(connection.answer(stream))
    except TimeoutError:
        return "no answer"
    except (Ended, OSError):
        return "closed"


def ask_both_ways(tally: Tally, aim: Aim, inference: Inference) -> None:
    """Sends one inference over gRPC and over HTTP, and counts both."""
    message = inference.message()
    tally.add(grpc_outcome(aim.grpc, message), len(message))
    body, fields = inference.body()
    named = {name.replace("-", "_"): value for name, value in fields.items()}
    tally.add(http_outcome(aim.http, "POST", inference.target, body, **named), len(body))


def word_of_grpc(answer: Http2Answer) -> str:
    """`ok`, the code of an error, or `reset`."""
    if answer.grpc_status is None:
        return "reset"
    return "ok" if answer.grpc_status == 0 else (answer.code or f"grpc {answer.grpc_status}")


def is_closed_within(opened: socket.socket, limit_s: float) -> bool:
    """Whether the server ends a connection; what it says before is thrown away."""
    opened.settimeout(limit_s)
    with suppress(ConnectionResetError, BrokenPipeError):
        try:
            while opened.recv(1 << 16):
                pass
        except TimeoutError:
            return False
    return True


def probe(address: str, path: str, limit_s: float) -> int | None:
    """The status of a probe; none if there was no answer in time."""
    try:
        with socket.create_connection(_pair(address), timeout=limit_s) as opened:
            opened.sendall(head("GET", path, {"connection": "close"}))
            first = opened.recv(1 << 12)
    except OSError:
        return None
    return int(first.split(b" ", 2)[1]) if first.startswith(b"HTTP/1.1 ") else None


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def as_json(document: Mapping[str, object]) -> bytes:
    """A body."""
    return json.dumps(document).encode()
