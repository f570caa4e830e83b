"""A load whose every answer is looked at: its values, the version that it names, and whether that one may still answer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from figures import wire
from figures.load import Shape
from figures.subject import INFER

LIMIT_S = 60.0
# Streams of one connection before it is replaced: far below the numbers that HTTP/2 has.
STREAMS = 200_000
EXAMPLES = 5


@dataclass
class Checked:
    """What the answers were."""

    answers: int = 0
    failed: int = 0
    wrong_values: int = 0
    wrong_versions: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keeps a few, to look at."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)


class Checker:
    """Keeps requests in flight over one connection, and checks every answer; runs in a thread.

    Attributes:
        oldest: No request that is sent from now on may be answered by an older version.
        found: What the answers were so far.
        error: Why it ended, if it was not told to.
    """

    def __init__(
        self, address: str, message: bytes, shape: Shape, expected: Callable[[int], npt.NDArray[np.float32]]
    ) -> None:
        """`expected`: the right values for a version."""
        self.oldest = 0
        self.found = Checked()
        self.error: Exception | None = None
        self._address = address
        self._message = message
        self._at_once = shape.connections * shape.streams
        self._expected = expected
        self._right: dict[bytes, int] = {}
        self._ended = threading.Event()
        self._going = threading.Event()
        self._idle = threading.Event()
        self._going.set()

    def run(self) -> None:
        """Until `stop`."""
        try:
            while not self._ended.is_set():
                self._connection()
        except Exception as error:  # noqa: BLE001 -- whatever it was, the measurement has to tell
            self.error = error

    def stop(self) -> None:
        """Ends it once everything in flight is answered."""
        self._ended.set()
        self._going.set()

    def pause(self) -> None:
        """Lets everything in flight be answered and sends nothing more."""
        self._idle.clear()
        self._going.clear()
        self._idle.wait(LIMIT_S)

    def resume(self) -> None:
        """Goes on."""
        self._going.set()

    def _connection(self) -> None:
        host, port = self._address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as opened:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.sendall(wire.opening(wire.LARGEST_WINDOW))
            _Conversation(self, opened).run()

    def is_wanted(self) -> bool:
        """Whether to send more."""
        return self._going.is_set() and not self._ended.is_set()

    def rest(self) -> None:
        """Nothing is in flight."""
        self._idle.set()
        self._going.wait(LIMIT_S)

    def calls(self, stream: int) -> bytes:
        """A request on this stream."""
        return wire.call(INFER, self._message, stream)

    @property
    def at_once(self) -> int:
        """Requests in flight."""
        return self._at_once

    @property
    def has_ended(self) -> bool:
        """Whether it was told to stop."""
        return self._ended.is_set()

    def check(self, data: bytes, oldest: int) -> None:
        """One answer to a request that was sent when `oldest` was in force; empty data: an error came instead."""
        found = self.found
        found.answers += 1
        version = self._right.get(data)
        if version is None:
            version = self._look(data)
        if version is not None and version < oldest:
            found.wrong_versions += 1
            found.note(f"version {version} answered after {oldest} had taken over")

    def _look(self, data: bytes) -> int | None:
        if len(data) < 5 or struct.unpack(">BI", data[:5]) != (0, len(data) - 5):
            self.found.failed += 1
            self.found.note(f"no message: {data[:40]!r}")
            return None
        answer = service_pb2.ModelInferResponse.FromString(data[5:])
        version = int(answer.model_version)
        if list(answer.raw_output_contents) != [self._expected(version).tobytes()]:
            self.found.wrong_values += 1
            self.found.note(f"version {version} answered {np.frombuffer(answer.raw_output_contents[0], np.float32)}")
            return None
        # Right answers of a version are equal to the last byte.
        self._right[data] = version
        return version


class _Conversation:
    """One connection."""

    def __init__(self, checker: Checker, opened: socket.socket) -> None:
        self._checker = checker
        self._socket = opened
        self._next = 1
        # By stream: the oldest version that may answer, and the data so far.
        self._open: dict[int, int] = {}
        self._data: dict[int, bytes] = {}
        self._received = b""

    def run(self) -> None:
        checker = self._checker
        while True:
            if checker.is_wanted() and self._next < 2 * STREAMS:
                self._fill()
            elif not self._open:
                if checker.has_ended or self._next >= 2 * STREAMS:
                    return
                checker.rest()
                continue
            received = self._socket.recv(1 << 20)
            if not received:
                raise ConnectionError("the server closed the connection")
            self._take(received)

    def _fill(self) -> None:
        parts = []
        while len(self._open) < self._checker.at_once:
            parts.append(self._checker.calls(self._next))
            self._open[self._next] = self._checker.oldest
            self._next += 2
        if parts:
            self._socket.sendall(b"".join(parts))

    def _take(self, received: bytes) -> None:
        buffer, at = self._received + received, 0
        while len(buffer) - at >= wire.HEAD_BYTES:
            length = int.from_bytes(buffer[at : at + 3], "big")
            end = at + wire.HEAD_BYTES + length
            if end > len(buffer):
                break
            kind, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            self._frame(wire.Frame(kind, flags, stream & 0x7FFFFFFF, buffer[at + wire.HEAD_BYTES : end]))
            at = end
        self._received = buffer[at:]

    def _frame(self, frame: wire.Frame) -> None:
        if frame.kind == wire.SETTINGS and not frame.flags & wire.ACK:
            self._socket.sendall(wire.Frame(wire.SETTINGS, wire.ACK, 0, b"").to_bytes())
        elif frame.kind == wire.PING and not frame.flags & wire.ACK:
            self._socket.sendall(wire.Frame(wire.PING, wire.ACK, 0, frame.payload).to_bytes())
        elif frame.kind == wire.GOAWAY:
            raise ConnectionError("the server closes the connection")
        elif frame.stream:
            self._of_stream(frame)

    def _of_stream(self, frame: wire.Frame) -> None:
        stream = frame.stream
        if frame.kind == wire.DATA:
            self._data[stream] = self._data.get(stream, b"") + frame.payload
        is_end = frame.kind in {wire.DATA, wire.HEADERS} and frame.flags & wire.END_STREAM
        if is_end or frame.kind == wire.RST_STREAM:
            oldest = self._open.pop(stream)
            self._checker.check(self._data.pop(stream, b""), oldest)
