"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from mlserve.client.address import Address, parse_address
from mlserve.client.prepare import CallOptions, WireRequest, needs_metadata, prepare
from mlserve.client.sync_management import ManagementCalls
from mlserve.errors import DeadlineExceededError, InvalidArgumentError, NotFoundError, UnavailableError
from mlserve.types import InferRequest, InferResult, ModelMetadata, ServerMetadata

if TYPE_CHECKING:
    from typing import Self

    from mlserve.client.grpc_sync import GrpcTransport
    from mlserve.client.http_sync import HttpTransport
    from mlserve.client.operation import Found, Operation
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, Inputs, ParameterValue, Protocol

# Longer than a server's default deadline of 30 s, so that its own, better informed error comes first.
DEFAULT_TIMEOUT_S = 60.0


class Client(ManagementCalls):
    """Speaks with a server of the Open Inference Protocol; one may be shared by several threads.

    Args:
        url: `host:port`, `grpc://host:port`, `http://host:port`, or `unix:///path` for a Unix socket.
        protocol: "grpc" or "http"; by default what the url says, else gRPC.
        timeout_s: Deadline of each call that names none; `None` waits without end. It travels with the call, so the
            server stops working on what nobody waits for any more.
        compression: "gzip" or "deflate" for requests, and for answers where the server can.
        headers: Sent with each call, as HTTP headers or gRPC metadata.

    Example:
        >>> import numpy as np
        >>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
        ...     result = client.infer("digits", np.zeros((1, 64), np.float32))
        ...     result["probabilities"]
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
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._known: dict[tuple[str, str], ModelMetadata] = {}
        self._transport = _transport(parse_address(url, protocol), check_compression(compression))

    def infer(
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
        """Runs one inference.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, or one array for a model with a single input. Arrays go as they are; lists
                and numbers take the type that the model expects.
            version: Version to ask; empty lets the server choose.
            outputs: Outputs to return; none means all.
            parameters: Request parameters of the protocol.
            priority: 1 is the highest, 0 the model's default.
            timeout_s: Deadline of this call instead of the client's.
            request_id: Comes back as the result's `id` and stands in the server's logs.
            classification: Outputs to return as their best classes, with how many: `{"probabilities": 3}`. Such an
                output is an array of `bytes` "value:index" or "value:index:label"; it counts as one of `outputs`.
            headers: Sent beside the client's own.

        Raises:
            MlserveError: Of the class that fits the server's refusal, with the server's text.
        """
        request = InferRequest(
            model, inputs, version, outputs, parameters or {}, priority, request_id, classification or {}
        )
        call = self._call(timeout_s, headers)
        try:
            return self._transport.infer(self._prepare(request, call), call)
        except (InvalidArgumentError, NotFoundError):
            # Another version may have come with other inputs: ask again next time.
            self._known.pop((model, version), None)
            raise

    def stream_infer(
        self,
        requests: Iterable[InferRequest],
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[InferResult | MlserveError]:
        """Runs inferences on one stream (gRPC only) and yields the replies in the order of the requests.

        An error of one request is yielded in its place and the stream goes on.

        Args:
            requests: Read as the stream takes them, in a thread of gRPC.
            timeout_s: Deadline of the whole stream; by default it has none.
            headers: Sent beside the client's own.

        Raises:
            MlserveError: The stream itself failed.
        """
        call = CallOptions(timeout_s, {**self._headers, **(headers or {})})
        short = self._call(None, headers)
        return self._transport.stream((self._prepare(request, short) for request in requests), call)

    def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server's process answers; `False` if it cannot be reached."""
        try:
            return self._transport.is_live(self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server takes requests; `False` if it cannot be reached."""
        try:
            return self._transport.is_ready(self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    def is_model_ready(self, model: str, *, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether a model takes requests; `False` if it is unknown or the server cannot be reached."""
        try:
            return self._transport.is_model_ready(model, version, self._call(timeout_s))
        except (UnavailableError, DeadlineExceededError):
            return False

    def server_metadata(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """Name, version and protocol extensions of the server."""
        return self._transport.server_metadata(self._call(timeout_s))

    def model_metadata(self, model: str, *, version: str = "", timeout_s: float | None = None) -> ModelMetadata:
        """What a model takes and gives."""
        return self._transport.model_metadata(model, version, self._call(timeout_s))

    def close(self) -> None:
        """Closes the connections; calls that still run are cancelled."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _manage(self, operation: Operation[Found], timeout_s: float | None) -> Found:
        call = CallOptions(timeout_s, self._headers) if operation.is_long else self._call(timeout_s)
        return self._transport.manage(operation, call)

    def _call(self, timeout_s: float | None, headers: Mapping[str, str] | None = None) -> CallOptions:
        chosen = self._timeout_s if timeout_s is None else timeout_s
        return CallOptions(chosen, {**self._headers, **(headers or {})})

    def _prepare(self, request: InferRequest, call: CallOptions) -> WireRequest:
        if not needs_metadata(request.inputs):
            return prepare(request, None)
        key = (request.model, request.version)
        if key not in self._known:
            self._known[key] = self._transport.model_metadata(*key, call)
        return prepare(request, self._known[key])


def check_compression(compression: Compression | None) -> Compression | None:
    """Refuses what neither transport knows."""
    if compression not in {None, "gzip", "deflate"}:
        raise InvalidArgumentError(f"compression '{compression}' is unknown; use 'gzip', 'deflate' or None")
    return compression


def _transport(address: Address, compression: Compression | None) -> GrpcTransport | HttpTransport:
    """Imports only the transport that is used."""
    if address.protocol == "grpc":
        from mlserve.client.grpc_sync import GrpcTransport  # noqa: PLC0415 -- costs 0.1 s

        return GrpcTransport(address, compression)
    from mlserve.client.http_sync import HttpTransport  # noqa: PLC0415 -- needs no gRPC

    return HttpTransport(address, compression)
