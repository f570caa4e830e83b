"""The good client: small requests over both transports, one after the other, each answer held against its values."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.raw_http import head, open_socket, read_answer
from tests.requests_by_hand import Inference, Tensor

MODEL = "identity_FP32"
PATH = "/inference.GRPCInferenceService/ModelInfer"
# Far beyond anything that a busy machine explains.
ANSWER_LIMIT_S = 20.0
# Between two requests, so that the client itself is no load.
PACE_S = 0.002
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR = 0
WINDOW = (1 << 31) - 1


class WrongAnswer(Exception):  # noqa: N818 -- an outcome
    """The server answered something else."""


@dataclass
class Asked:
    """Seconds that each answered request took, and what went wrong with the others."""

    times_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Seconds within which this share was answered."""
        ordered = sorted(self.times_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class GoodClient:
    """Two kept connections; a context of its own for each server."""

    def __init__(self, http: str, grpc: str, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- values, not secrets
        self._http = open_socket(http)
        self._http.settimeout(ANSWER_LIMIT_S)
        self._grpc = GrpcConnection(grpc)

    def close(self) -> None:
        """Ends both connections."""
        self._http.close()
        self._grpc.close()

    def ask_while(self, goes_on: Callable[[], bool], at_least: int) -> Asked:
        """Asks over both transports in turn, at least so often, and as long as the condition holds."""
        asked = Asked()
        while len(asked.times_s) + len(asked.failures) < at_least or goes_on():
            call = (self._ask_grpc, self._ask_http)[len(asked.times_s) % 2]
            begun = time.perf_counter()
            try:
                call()
            except (OSError, WrongAnswer) as error:
                asked.failures.append(f"{call.__name__}: {type(error).__name__} {error}"[:300])
                return asked
            asked.times_s.append(time.perf_counter() - begun)
            time.sleep(PACE_S)
        return asked

    def _tensor(self) -> Tensor:
        values = [self._random.random() for _ in range(6)]
        return Tensor("x", "FP32", (2, 3), struct.pack("<6f", *values))

    def _ask_http(self) -> None:
        tensor = self._tensor()
        inference = Inference(MODEL, [tensor], parameters={"binary_data_output": True})
        body, fields = inference.body()
        self._http.sendall(head("POST", inference.target, {**fields, "content-length": str(len(body))}) + body)
        answer = read_answer(self._http)
        if answer is None or answer.status != 200 or not answer.body.endswith(tensor.data):
            raise WrongAnswer(str(answer))

    def _ask_grpc(self) -> None:
        tensor = self._tensor()
        found = self._grpc.call(PATH, Inference(MODEL, [tensor]).message())
        if not found.endswith(tensor.data):
            raise WrongAnswer(repr(found))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(path: str, **fields: str) -> bytes:
    """The header of a gRPC call as literals that no table remembers."""
    first = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers")]
    named = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return literals([*first, ("content-type", "application/grpc"), *named])


def literals(fields: list[tuple[str, str]]) -> bytes:
    """Fields as HPACK literals without indexing; names and values of less than 127 bytes."""
    return b"".join(
        b"\0" + bytes([len(part)]) + part.encode() if at == 0 else bytes([len(part)]) + part.encode()
        for pair in fields
        for at, part in enumerate(pair)
    )


class GrpcConnection:
    """A connection that decodes nothing but DATA, so that the client adds little to what it measures.

    As every gRPC client it goes elsewhere after a GOAWAY without an error, which idle connections get that make room for
    others: what the server still takes is answered first, what it does not take is sent again (RFC 9113, section 6.8).
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._open()

    def _open(self) -> None:
        self._socket = open_socket(self._address)
        self._must_go = False
        self._socket.settimeout(ANSWER_LIMIT_S)
        self._received = b""
        self._stream = 1
        grow = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65_535))
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WINDOW)) + grow)

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def call(self, path: str, message: bytes) -> bytes:
        """The DATA of the answer; empty if it is an error."""
        data = None if self._must_go else self._call(path, message)
        if data is None:
            self.close()
            self._open()
            data = self._call(path, message)
        if data is None:
            raise ConnectionError("a new connection is told to go at once")
        return data

    def _call(self, path: str, message: bytes) -> bytes | None:
        """`None`: the server has not taken it."""
        stream, self._stream = self._stream, self._stream + 2
        sent = struct.pack(">BI", 0, len(message)) + message
        opening = frame(HEADERS, END_HEADERS, stream, header_block(path))
        # If it fails, the GOAWAY lies unread, and says which streams were taken.
        with suppress(BrokenPipeError):
            self._socket.sendall(opening + frame(DATA, END_STREAM, stream, sent))
        data = b""
        while True:
            kind, flags, found, payload = self._next()
            if kind in {SETTINGS, PING} and not flags & ACK:
                self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                last, code = struct.unpack(">II", payload[:8])
                if code != NO_ERROR:
                    raise ConnectionError(f"GOAWAY {payload!r}")
                self._must_go = True
                if stream > last:
                    return None
            elif found == stream:
                data += payload if kind == DATA else b""
                if kind == RESET or (kind in {DATA, HEADERS} and flags & END_STREAM):
                    return data

    def _next(self) -> tuple[int, int, int, bytes]:
        start = self._take(9)
        kind, flags, stream = struct.unpack(">BBI", start[3:])
        return kind, flags, stream & 0x7FFFFFFF, self._take(int.from_bytes(start[:3], "big"))

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            more = self._socket.recv(1 << 16)
            if not more:
                raise ConnectionError("closed by the server")
            self._received += more
        taken, self._received = self._received[:count], self._received[count:]
        return taken
