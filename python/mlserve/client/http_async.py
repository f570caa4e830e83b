"""Asynchronous HTTP through aiohttp (`pip install mlserve[http]`)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from mlserve.client import http_codec as codec
from mlserve.client.http_sync import STREAM_TEXT
from mlserve.errors import (
    ConfigError,
    DeadlineExceededError,
    NotOfferedError,
    RequestCancelledError,
    UnavailableError,
)

try:
    import aiohttp
except ImportError as error:
    raise ConfigError("AsyncClient over HTTP needs aiohttp: pip install 'mlserve[http]'") from error

if TYPE_CHECKING:
    from mlserve.client.address import Address
    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import CallOptions, WireRequest
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, InferResult, ModelMetadata, ServerMetadata

_OK = 200


class AsyncHttpTransport:
    """Kept-alive connections of one event loop."""

    def __init__(self, address: Address, compression: Compression | None) -> None:
        self._where = address.path or address.authority
        self._base = f"http://{address.authority}"
        self._compression = compression
        # No bound on connections: how many calls run at once is the caller's choice.
        connector = aiohttp.UnixConnector(address.path, limit=0) if address.path else aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def infer(self, request: WireRequest, call: CallOptions) -> InferResult:
        """One inference."""
        return codec.infer_result(await self._send(codec.infer_request(request, call, self._compression), call))

    def stream(
        self, requests: AsyncIterable[WireRequest], call: CallOptions
    ) -> AsyncIterator[InferResult | MlserveError]:
        """Not over HTTP."""
        del requests, call
        raise NotOfferedError(STREAM_TEXT)

    async def is_live(self, call: CallOptions) -> bool:
        """Whether the process answers."""
        return (await self._send(codec.get(codec.LIVE_PATH, call), call)).status == _OK

    async def is_ready(self, call: CallOptions) -> bool:
        """Whether the server takes requests."""
        return (await self._send(codec.get(codec.READY_PATH, call), call)).status == _OK

    async def is_model_ready(self, model: str, version: str, call: CallOptions) -> bool:
        """Whether a model takes requests."""
        return (await self._send(codec.get(codec.model_path(model, version, "ready"), call), call)).status == _OK

    async def server_metadata(self, call: CallOptions) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return codec.server_metadata(await self._send(codec.get(codec.SERVER_PATH, call), call))

    async def model_metadata(self, model: str, version: str, call: CallOptions) -> ModelMetadata:
        """What a model takes and gives."""
        return codec.model_metadata(await self._send(codec.get(codec.model_path(model, version), call), call))

    async def manage(self, operation: Operation[Found], call: CallOptions) -> Found:
        """A call that manages the server."""
        return codec.management_result(operation, await self._send(codec.management_request(operation, call), call))

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def _send(self, request: codec.HttpRequest, call: CallOptions) -> codec.HttpAnswer:
        if self._session.closed:
            raise RequestCancelledError("the client is closed")
        # Ours win: aiohttp would otherwise offer encodings that we did not ask for.
        headers = {"accept-encoding": "identity", **request.headers}
        try:
            async with self._session.request(
                request.method,
                self._base + request.path,
                data=request.body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=call.timeout_s),
            ) as answer:
                body = await answer.read()
                found = {name.lower(): value for name, value in answer.headers.items()}
                return codec.HttpAnswer(answer.status, found, body)
        except TimeoutError as error:
            raise DeadlineExceededError(f"no answer from {self._where} in {call.timeout_s} s") from error
        except aiohttp.ClientError as error:
            raise UnavailableError(f"cannot reach {self._where}: {error}") from error
