"""Blocking HTTP on the standard library, with kept-alive connections."""

from __future__ import annotations

import http.client
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mlserve.client import http_codec as codec
from mlserve.errors import (
    DeadlineExceededError,
    InternalError,
    NotOfferedError,
    RequestCancelledError,
    UnavailableError,
)

if TYPE_CHECKING:
    from mlserve.client.address import Address
    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import CallOptions, WireRequest
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, InferResult, ModelMetadata, ServerMetadata

STREAM_TEXT = "a stream of inferences needs gRPC; every port of the server answers it: use protocol='grpc'"
# The server may close a kept-alive connection at any moment; these say so before a byte of the answer came.
_CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class HttpTransport:
    """Connections to one server, as many as are in use at once; safe to use from several threads."""

    def __init__(self, address: Address, compression: Compression | None) -> None:
        self._address = address
        self._compression = compression
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._closed = False

    def infer(self, request: WireRequest, call: CallOptions) -> InferResult:
        """One inference."""
        return codec.infer_result(self._send(codec.infer_request(request, call, self._compression), call))

    def stream(self, requests: Iterable[WireRequest], call: CallOptions) -> Iterator[InferResult | MlserveError]:
        """Not over HTTP."""
        del requests, call
        raise NotOfferedError(STREAM_TEXT)

    def is_live(self, call: CallOptions) -> bool:
        """Whether the process answers."""
        return self._send(codec.get(codec.LIVE_PATH, call), call).status == http.client.OK

    def is_ready(self, call: CallOptions) -> bool:
        """Whether the server takes requests."""
        return self._send(codec.get(codec.READY_PATH, call), call).status == http.client.OK

    def is_model_ready(self, model: str, version: str, call: CallOptions) -> bool:
        """Whether a model takes requests."""
        return self._send(codec.get(codec.model_path(model, version, "ready"), call), call).status == http.client.OK

    def server_metadata(self, call: CallOptions) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return codec.server_metadata(self._send(codec.get(codec.SERVER_PATH, call), call))

    def model_metadata(self, model: str, version: str, call: CallOptions) -> ModelMetadata:
        """What a model takes and gives."""
        return codec.model_metadata(self._send(codec.get(codec.model_path(model, version), call), call))

    def manage(self, operation: Operation[Found], call: CallOptions) -> Found:
        """A call that manages the server."""
        return codec.management_result(operation, self._send(codec.management_request(operation, call), call))

    def close(self) -> None:
        """Closes the idle connections; those in use close when their call ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _send(self, request: codec.HttpRequest, call: CallOptions) -> codec.HttpAnswer:
        if self._closed:
            raise RequestCancelledError("the client is closed")
        end = None if call.timeout_s is None else time.monotonic() + call.timeout_s
        try:
            if self._idle:
                try:
                    return self._exchange(self._idle.pop(), request, end)
                except _CLOSED:
                    # The server closed it while it idled; a fresh connection tells whether it is still there.
                    self._drop_idle()
            return self._exchange(_connection(self._address), request, end)
        except TimeoutError as error:
            raise DeadlineExceededError(f"no answer from {self._where} in {call.timeout_s} s") from error
        except OSError as error:
            raise UnavailableError(f"cannot reach {self._where}: {error}") from error
        except http.client.HTTPException as error:
            raise InternalError(f"answer of {self._where} is not HTTP: {error!r}") from error

    def _exchange(
        self, connection: http.client.HTTPConnection, request: codec.HttpRequest, end: float | None
    ) -> codec.HttpAnswer:
        keep = False
        try:
            _set_timeout(connection, end)
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            _set_timeout(connection, end)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            body = answer.read()
            keep = not answer.will_close
        finally:
            if keep and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
        return codec.HttpAnswer(answer.status, headers, body)

    def _drop_idle(self) -> None:
        """Drops the connections that idled longer than the one just found closed."""
        while self._idle:
            self._idle.popleft().close()

    @property
    def _where(self) -> str:
        return self._address.path or self._address.authority


def _connection(address: Address) -> http.client.HTTPConnection:
    if address.path:
        return _UnixConnection(address.path)
    return http.client.HTTPConnection(address.host, address.port)


def _set_timeout(connection: http.client.HTTPConnection, end: float | None) -> None:
    """Gives the next socket operation what is left of the deadline."""
    left = None if end is None else end - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError
    connection.timeout = left
    if connection.sock is not None:
        connection.sock.settimeout(left)


class _UnixConnection(http.client.HTTPConnection):
    """A connection through a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
