"""Blocking gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from mlserve.client import grpc_codec as codec
from mlserve.client._proto import inference_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from mlserve.client.address import Address
    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import CallOptions, WireRequest
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, InferResult, ModelMetadata, ServerMetadata

COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate, None: None}


def raw(data: bytes) -> bytes:
    """Keeps a message as bytes: its parsing belongs to us, so that broken bytes become our error."""
    return data


def metadata_of(call: CallOptions) -> tuple[tuple[str, str], ...]:
    """The call's headers as gRPC metadata."""
    return tuple((name.lower(), value) for name, value in call.headers.items())


class GrpcTransport:
    """One channel; safe to use from several threads."""

    def __init__(self, address: Address, compression: Compression | None) -> None:
        self._channel = grpc.insecure_channel(address.grpc_target, options=codec.channel_options(address))
        self._compression = COMPRESSIONS[compression]
        self._rpcs: dict[str, Callable[..., bytes]] = {}

    def infer(self, request: WireRequest, call: CallOptions) -> InferResult:
        """One inference."""
        return codec.infer_result(self._call("ModelInfer", codec.infer_message(request), pb.ModelInferResponse, call))

    def stream(self, requests: Iterable[WireRequest], call: CallOptions) -> Iterator[InferResult | MlserveError]:
        """Inferences on one stream."""
        rpc = self._channel.stream_stream(
            codec.path_of("ModelStreamInfer"), request_serializer=codec.serialize, response_deserializer=raw
        )
        messages = (codec.infer_message(request) for request in requests)
        with translated():
            replies = rpc(messages, timeout=call.timeout_s, metadata=metadata_of(call), compression=self._compression)
            try:
                for data in replies:
                    yield codec.stream_reply(data)
            finally:
                replies.cancel()

    def is_live(self, call: CallOptions) -> bool:
        """Whether the process answers."""
        return bool(self._call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, call).live)

    def is_ready(self, call: CallOptions) -> bool:
        """Whether the server takes requests."""
        return bool(self._call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, call).ready)

    def is_model_ready(self, model: str, version: str, call: CallOptions) -> bool:
        """Whether a model takes requests."""
        message = pb.ModelReadyRequest(name=model, version=version)
        return bool(self._call("ModelReady", message, pb.ModelReadyResponse, call).ready)

    def server_metadata(self, call: CallOptions) -> ServerMetadata:
        """Name, version and extensions of the server."""
        message = self._call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse, call)
        return codec.server_metadata(message)

    def model_metadata(self, model: str, version: str, call: CallOptions) -> ModelMetadata:
        """What a model takes and gives."""
        message = pb.ModelMetadataRequest(name=model, version=version)
        return codec.model_metadata(self._call("ModelMetadata", message, pb.ModelMetadataResponse, call))

    def manage(self, operation: Operation[Found], call: CallOptions) -> Found:
        """A call that manages the server."""
        data = self._exchange(operation.rpc, codec.management_message(operation), call)
        return codec.management_result(operation, data)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _call(self, rpc: str, message: Message, answer: type[codec.Answer], call: CallOptions) -> codec.Answer:
        return codec.parse(answer, self._exchange(rpc, message, call))

    def _exchange(self, rpc: str, message: Message, call: CallOptions) -> bytes:
        known = self._rpcs.get(rpc)
        if known is None:
            known = self._channel.unary_unary(
                codec.path_of(rpc), request_serializer=codec.serialize, response_deserializer=raw
            )
            self._rpcs[rpc] = known
        with translated():
            return known(message, timeout=call.timeout_s, metadata=metadata_of(call), compression=self._compression)


@contextmanager
def translated() -> Iterator[None]:
    """Turns gRPC's errors into ours."""
    try:
        yield
    except grpc.RpcError as error:
        # Pairs at run time, on both kinds of channel; the stub has another type for each.
        trailers: Any = error.trailing_metadata()
        raise codec.error_of(error.code().value[0], error.details() or "", trailers) from error
    except ValueError as error:
        # The channel says so when it was closed before or during the call.
        raise codec.error_of(grpc.StatusCode.CANCELLED.value[0], str(error), None) from error
