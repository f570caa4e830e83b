"""The least of HTTP/2 and gRPC that a measurement needs: sockets that cost a poll next to nothing, or never read.

Answers are found by their DATA frames; header blocks are not decoded, so only literal fields are sent.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
HEAD_BYTES = 9
# The window that every connection begins with, and the largest that there is.
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1


@dataclass(frozen=True)
class Frame:
    """One HTTP/2 frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """As it travels."""
        head = struct.pack(">I", len(self.payload))[1:] + struct.pack(">BBI", self.kind, self.flags, self.stream)
        return head + self.payload


def grpc_message(message: bytes) -> bytes:
    """A message with its gRPC prefix: not compressed, and its length."""
    return struct.pack(">BI", 0, len(message)) + message


def opening(window: int) -> bytes:
    """What a client says first; `window`: how much it takes unread, of each stream and of the whole connection."""
    settings = Frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)).to_bytes()
    more = window - DEFAULT_WINDOW
    return PREFACE + settings + (Frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", more)).to_bytes() if more > 0 else b"")


def call(path: str, message: bytes, stream: int = 1) -> bytes:
    """A whole unary gRPC call."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    block = b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)
    head = Frame(HEADERS, END_HEADERS, stream, block).to_bytes()
    return head + Frame(DATA, END_STREAM, stream, grpc_message(message)).to_bytes()


def _string(text: str) -> bytes:
    """A string literal of HPACK, shorter than 127 bytes, without Huffman coding."""
    return bytes([len(text)]) + text.encode("ascii")


class Connection:
    """One connection that makes one call after the other."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects; OSError if nobody listens."""
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._stream = 1
        self._socket.sendall(opening(LARGEST_WINDOW))

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def data_of(self, path: str, message: bytes) -> bytes:
        """The DATA of one answer; empty if the server answered with an error alone."""
        stream, self._stream = self._stream, self._stream + 2
        self._socket.sendall(call(path, message, stream))
        data = b""
        while True:
            frame = self._next()
            if frame.kind == SETTINGS and not frame.flags & ACK:
                self._socket.sendall(Frame(SETTINGS, ACK, 0, b"").to_bytes())
            elif frame.kind == PING and not frame.flags & ACK:
                self._socket.sendall(Frame(PING, ACK, 0, frame.payload).to_bytes())
            elif frame.kind == GOAWAY:
                raise ConnectionError("the server closes the connection")
            elif frame.stream == stream:
                data += frame.payload if frame.kind == DATA else b""
                if frame.kind == RST_STREAM or (frame.kind in {DATA, HEADERS} and frame.flags & END_STREAM):
                    return data

    def _next(self) -> Frame:
        head = self._take(HEAD_BYTES)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return Frame(kind, flags, stream & 0x7FFFFFFF, self._take(length))

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            more = self._socket.recv(65_536)
            if not more:
                raise ConnectionError("the server closed the connection")
            self._received += more
        taken, self._received = self._received[:count], self._received[count:]
        return taken
