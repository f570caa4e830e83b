"""HTTP/2 with prior knowledge, stream by stream and frame by frame: gRPC calls and attacks that no client library makes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.raw_http import HttpAnswer, open_socket

if TYPE_CHECKING:
    from typing_extensions import Self  # noqa: UP035 -- typing has it from Python 3.11 on

READ_BYTES = 1 << 16
# Length, type, flags, stream.
FRAME_HEAD_BYTES = 9
DATA, HEADERS, RESET, PING, WINDOW_UPDATE = 0, 1, 3, 6, 8
WINDOW_STEP = 16_384
END_STREAM = 1
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Ended(Exception):  # noqa: N818 -- an outcome that tests look for
    """The server closed the connection."""


@dataclass
class Http2Answer:
    """What has come on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    has_ended: bool = False
    reset: int | None = None

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        return b"".join(self.pieces)

    @property
    def grpc_status(self) -> int | None:
        """The status of a gRPC call, from the trailers or, if there was no message, the header."""
        found = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if found is None else int(found)

    @property
    def grpc_text(self) -> str:
        """The text of a gRPC error."""
        return unquote(self.trailers.get("grpc-message", self.headers.get("grpc-message", "")))

    @property
    def code(self) -> str | None:
        """The row of the error table that the server names."""
        return self.trailers.get("mlserve-code", self.headers.get("mlserve-code"))

    def messages(self) -> list[bytes]:
        """The messages of a gRPC answer, without their prefixes."""
        body, found, at = self.body, [], 0
        while at < len(body):
            length = int.from_bytes(body[at + 1 : at + 5], "big")
            found.append(body[at + 5 : at + 5 + length])
            at += 5 + length
        return found

    def as_http(self) -> HttpAnswer:
        """The answer as one over HTTP/1.1 would be."""
        status = int(self.headers[":status"])
        return HttpAnswer(status, self.headers, self.body)


class Http2Connection:
    """One connection; a context manager. `settings` are the client's own."""

    def __init__(self, address: str, settings: Mapping[int, int] | None = None) -> None:
        self.socket = open_socket(address)
        # Header fields go out as they are given: some tests give bad ones.
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.answers: dict[int, Http2Answer] = {}
        self.goaway: int | None = None
        self._received = b""
        # Received since the GOAWAY and not given back; one stream at a time.
        self._ungiven = 0
        if settings:
            initial = {h2.settings.SettingCodes(code): value for code, value in settings.items()}
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Writes what the protocol wants to say."""
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def open(self, headers: Sequence[tuple[str, str]], *, end: bool = False) -> int:
        """Opens a stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.answers[stream] = Http2Answer()
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Sends data as the windows allow; stops early if the server has answered or reset the stream."""
        at = 0
        while True:
            answer = self.answers[stream]
            if answer.has_ended or answer.reset is not None:
                return
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            piece = data[at : at + room]
            at += len(piece)
            is_last = at == len(data)
            if piece or is_last:
                self.h2.send_data(stream, piece, end_stream=end and is_last)
                self.flush()
            if is_last:
                return
            if room == 0:
                self.receive()

    def receive(self) -> None:
        """Reads once and takes in what came.

        Raises:
            Ended: The server closed the connection.
        """
        try:
            data = self.socket.recv(READ_BYTES)
        except ConnectionResetError as error:
            raise Ended from error
        if not data:
            raise Ended
        self._received += data
        # One frame at a time: the library takes none after a GOAWAY, and forgets the events of the same call.
        while len(self._received) >= FRAME_HEAD_BYTES:
            length = FRAME_HEAD_BYTES + int.from_bytes(self._received[:3], "big")
            if len(self._received) < length:
                break
            frame, self._received = self._received[:length], self._received[length:]
            if self.goaway is None:
                for event in self.h2.receive_data(frame):
                    self._take(event)
            else:
                self._take_after_goaway(frame)
        self.flush()

    def _take_after_goaway(self, frame: bytes) -> None:
        """What is open goes on after a GOAWAY; the library would have none of it."""
        kind, flags, payload = frame[3], frame[4], frame[FRAME_HEAD_BYTES:]
        found = self.answers.get(int.from_bytes(frame[5:9], "big"), Http2Answer())
        if kind == PING and not flags:
            self.socket.sendall(frame[:4] + b"\1" + frame[5:])
        elif kind == DATA:
            found.pieces.append(payload)
            self._give_window(frame[5:9], len(payload))
        elif kind == HEADERS:
            fields = _texts(self.h2.decoder.decode(payload))
            if found.headers:
                found.trailers = fields
            else:
                found.headers = fields
        elif kind == RESET:
            found.reset = int.from_bytes(payload, "big")
        if kind in {DATA, HEADERS} and flags & END_STREAM:
            found.has_ended = True

    def _give_window(self, stream: bytes, size: int) -> None:
        """Gives window back as the library would: seldom, as each frame has its price."""
        self._ungiven += size
        if self._ungiven > WINDOW_STEP:
            window = struct.pack(">I", self._ungiven)
            for of in (bytes(4), stream):
                self.socket.sendall(bytes([0, 0, 4, WINDOW_UPDATE, 0]) + of + window)
            self._ungiven = 0

    def answer(self, stream: int) -> Http2Answer:
        """Waits for a stream's end."""
        found = self.answers[stream]
        while not found.has_ended and found.reset is None:
            self.receive()
        return found

    def read_to_the_end(self) -> None:
        """Reads until the server closes the connection."""
        with suppress(Ended):
            while True:
                self.receive()

    def _take(self, event: Any) -> None:
        found = self.answers.get(getattr(event, "stream_id", None) or 0, Http2Answer())
        if isinstance(event, h2.events.ResponseReceived):
            found.headers = _texts(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            found.trailers = _texts(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            found.pieces.append(event.data)
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            found.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            found.reset = int(event.error_code or 0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)


def _texts(headers: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


def grpc_headers(path: str = INFER, **fields: str) -> list[tuple[str, str]]:
    """The header of a gRPC call; `grpc_timeout="1S"` adds the field `grpc-timeout`."""
    first = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    usual = {"te": "trailers", "content-type": "application/grpc"}
    return [*first, *usual.items(), *((name.replace("_", "-"), value) for name, value in fields.items())]


def framed(message: bytes, *, is_compressed: bool = False) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BI", is_compressed, len(message)) + message


def grpc_call(address: str, message: bytes, path: str = INFER, **fields: str) -> Http2Answer:
    """One unary gRPC call on a connection of its own, with nothing that a library would add or check."""
    with Http2Connection(address) as connection:
        stream = connection.open(grpc_headers(path, **fields))
        connection.send(stream, framed(message))
        return connection.answer(stream)


def http_call(
    address: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """One REST request over HTTP/2 on a connection of its own."""
    with Http2Connection(address) as connection:
        first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        stream = connection.open([*first, *(headers or {}).items()], end=not body)
        if body:
            connection.send(stream, body)
        return connection.answer(stream).as_http()
