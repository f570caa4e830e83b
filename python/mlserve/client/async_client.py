"""The asynchronous client: the blocking one's interface, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from mlserve.client.address import Address, parse_address
from mlserve.client.async_management import AsyncManagementCalls
from mlserve.client.prepare import CallOptions, WireRequest, needs_metadata, prepare
from mlserve.client.sync_client import DEFAULT_TIMEOUT_S, check_compression
from mlserve.errors import DeadlineExceededError, InvalidArgumentError, NotFoundError, UnavailableError
from mlserve.types import InferRequest, InferResult, ModelMetadata, ServerMetadata

if TYPE_CHECKING:
    from typing import Self

    from mlserve.client.grpc_async import AsyncGrpcTransport
    from mlserve.client.http_async import AsyncHttpTransport
    from mlserve.client.operation import Found, Operation
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, Inputs, ParameterValue, Protocol


class AsyncClient(AsyncManagementCalls):
    """Speaks with a server of the Open Inference Protocol from one event loop.

    The arguments are those of `Client`. The connection is made on first use, inside the loop that uses it. Over HTTP it
    needs aiohttp: `pip install 'mlserve[http]'`.

    Example:
        >>> async def first(array):
        ...     async with AsyncClient("127.0.0.1:8001") as client:
        ...         return await client.infer("digits", array)
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        protocol: Protocol | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        compression: Compression | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._address = parse_address(url, protocol)
        self._compression = check_compression(compression)
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._known: dict[tuple[str, str], ModelMetadata] = {}
        self._open: AsyncGrpcTransport | AsyncHttpTransport | None = None

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        parameters: Mapping[str, ParameterValue] | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        classification: Mapping[str, int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InferResult:
        """Runs one inference; see `Client.infer`. Cancelling the task cancels the request on the server.

        Raises:
            MlserveError: Of the class that fits the server's refusal, with the server's text.
        """
        request = InferRequest(
            model, inputs, version, outputs, parameters or {}, priority, request_id, classification or {}
        )
        call = self._call(timeout_s, headers)
        try:
            return await self._transport.infer(await self._prepare(request, call), call)
        except (InvalidArgumentError, NotFoundError):
            # Another version may have come with other inputs: ask again next time.
            self._known.pop((model, version), None)
            raise

    def stream_infer(
        self,
        requests: Iterable[InferRequest] | AsyncIterable[InferRequest],
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[InferResult | MlserveError]:
        """Runs inferences on one stream (gRPC only); see `Client.stream_infer`."""
        call = CallOptions(timeout_s, {**self._headers, **(headers or {})})
        short = self._call(None, headers)

        async def prepared() -> AsyncIterator[WireRequest]:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    yield await self._prepare(request, short)
            else:
                for request in requests:
                    yield await self._prepare(request, short)

        return self._transport.stream(prepared(), call)

    async def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server's process answers; `False` if it cannot be reached."""
        try:
            return await self._transport.is_live(self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    async def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server takes requests; `False` if it cannot be reached."""
        try:
            return await self._transport.is_ready(self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    async def is_model_ready(self, model: str, *, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether a model takes requests; `False` if it is unknown or the server cannot be reached."""
        try:
            return await self._transport.is_model_ready(model, version, self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    async def server_metadata(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """Name, version and protocol extensions of the server."""
        return await self._transport.server_metadata(self._call(timeout_s))

    async def model_metadata(self, model: str, *, version: str = "", timeout_s: float | None = None) -> ModelMetadata:
        """What a model takes and gives."""
        return await self._transport.model_metadata(model, version, self._call(timeout_s))

    async def close(self) -> None:
        """Closes the connections; calls that still run are cancelled."""
        if self._open is not None:
            await self._open.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _transport(self) -> AsyncGrpcTransport | AsyncHttpTransport:
        if self._open is None:
            self._open = _transport(self._address, self._compression)
        return self._open

    async def _manage(self, operation: Operation[Found], timeout_s: float | None) -> Found:
        call = CallOptions(timeout_s, self._headers) if operation.is_long else self._call(timeout_s)
        return await self._transport.manage(operation, call)

    def _call(self, timeout_s: float | None, headers: Mapping[str, str] | None = None) -> CallOptions:
        chosen = self._timeout_s if timeout_s is None else timeout_s
        return CallOptions(chosen, {**self._headers, **(headers or {})})

    async def _prepare(self, request: InferRequest, call: CallOptions) -> WireRequest:
        if not needs_metadata(request.inputs):
            return prepare(request, None)
        key = (request.model, request.version)
        if key not in self._known:
            self._known[key] = await self._transport.model_metadata(*key, call)
        return prepare(request, self._known[key])


def _transport(address: Address, compression: Compression | None) -> AsyncGrpcTransport | AsyncHttpTransport:
    """Imports only the transport that is used."""
    if address.protocol == "grpc":
        from mlserve.client.grpc_async import AsyncGrpcTransport  # noqa: PLC0415 -- costs 0.1 s

        return AsyncGrpcTransport(address, compression)
    from mlserve.client.http_async import AsyncHttpTransport  # noqa: PLC0415 -- needs aiohttp, an extra

    return AsyncHttpTransport(address, compression)
