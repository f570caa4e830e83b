"""Asynchronous gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from mlserve.client import grpc_codec as codec
from mlserve.client._proto import inference_pb2 as pb
from mlserve.client.grpc_sync import COMPRESSIONS, metadata_of, raw, translated

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from mlserve.client.address import Address
    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import CallOptions, WireRequest
    from mlserve.errors import MlserveError
    from mlserve.types import Compression, InferResult, ModelMetadata, ServerMetadata


class AsyncGrpcTransport:
    """One channel of one event loop."""

    def __init__(self, address: Address, compression: Compression | None) -> None:
        self._channel = grpc.aio.insecure_channel(address.grpc_target, options=codec.channel_options(address))
        self._compression = COMPRESSIONS[compression]
        self._rpcs: dict[str, Callable[..., Any]] = {}

    async def infer(self, request: WireRequest, call: CallOptions) -> InferResult:
        """One inference."""
        message = codec.infer_message(request)
        return codec.infer_result(await self._call("ModelInfer", message, pb.ModelInferResponse, call))

    async def stream(
        self, requests: AsyncIterable[WireRequest], call: CallOptions
    ) -> AsyncIterator[InferResult | MlserveError]:
        """Inferences on one stream."""
        rpc = self._channel.stream_stream(
            codec.path_of("ModelStreamInfer"), request_serializer=codec.serialize, response_deserializer=raw
        )

        async def messages() -> AsyncIterator[Any]:
            async for request in requests:
                yield codec.infer_message(request)

        with translated():
            replies = rpc(messages(), timeout=call.timeout_s, metadata=metadata_of(call), compression=self._compression)
            try:
                async for data in replies:
                    yield codec.stream_reply(data)
            finally:
                replies.cancel()

    async def is_live(self, call: CallOptions) -> bool:
        """Whether the process answers."""
        return bool((await self._call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, call)).live)

    async def is_ready(self, call: CallOptions) -> bool:
        """Whether the server takes requests."""
        return bool((await self._call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, call)).ready)

    async def is_model_ready(self, model: str, version: str, call: CallOptions) -> bool:
        """Whether a model takes requests."""
        message = pb.ModelReadyRequest(name=model, version=version)
        return bool((await self._call("ModelReady", message, pb.ModelReadyResponse, call)).ready)

    async def server_metadata(self, call: CallOptions) -> ServerMetadata:
        """Name, version and extensions of the server."""
        message = await self._call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse, call)
        return codec.server_metadata(message)

    async def model_metadata(self, model: str, version: str, call: CallOptions) -> ModelMetadata:
        """What a model takes and gives."""
        message = pb.ModelMetadataRequest(name=model, version=version)
        return codec.model_metadata(await self._call("ModelMetadata", message, pb.ModelMetadataResponse, call))

    async def manage(self, operation: Operation[Found], call: CallOptions) -> Found:
        """A call that manages the server."""
        data = await self._exchange(operation.rpc, codec.management_message(operation), call)
        return codec.management_result(operation, data)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _call(self, rpc: str, message: Message, answer: type[codec.Answer], call: CallOptions) -> codec.Answer:
        return codec.parse(answer, await self._exchange(rpc, message, call))

    async def _exchange(self, rpc: str, message: Message, call: CallOptions) -> bytes:
        known = self._rpcs.get(rpc)
        if known is None:
            known = self._channel.unary_unary(
                codec.path_of(rpc), request_serializer=codec.serialize, response_deserializer=raw
            )
            self._rpcs[rpc] = known
        with translated():
            data: bytes = await known(
                message, timeout=call.timeout_s, metadata=metadata_of(call), compression=self._compression
            )
        return data
