"""The protocol's gRPC messages to and from our types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from mlserve.client._proto import inference_pb2 as pb
from mlserve.errors import CODE_HEADER, InternalError, InvalidArgumentError, MlserveError, error_class
from mlserve.tensors import decode, from_elements
from mlserve.types import InferResult, ModelMetadata, ServerMetadata, TensorMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlserve.client.address import Address
    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import WireRequest
    from mlserve.types import ParameterValue

Answer = TypeVar("Answer", bound=Message)

SERVICE = "inference.GRPCInferenceService"

# Messages of any size: the server's limits hold, and its error says more than the client's would.
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # As over HTTP: a model server is spoken to directly.
    ("grpc.enable_http_proxy", 0),
)

_NO_CONNECTION = "failed to connect to all addresses"
_INT64_LIMIT = 1 << 63
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def channel_options(address: Address) -> list[tuple[str, int | str]]:
    """What a channel is made with."""
    # grpcio would send a socket's path as the authority, which HTTP/2 does not allow.
    return [*_CHANNEL_OPTIONS, *([("grpc.default_authority", address.authority)] if address.path else [])]


def path_of(rpc: str) -> str:
    """The full method name of an RPC."""
    return f"/{SERVICE}/{rpc}"


def serialize(message: Message) -> bytes:
    """Any message to bytes."""
    return message.SerializeToString()


def infer_message(request: WireRequest) -> pb.ModelInferRequest:
    """The request as a message; tensors travel raw."""
    message = pb.ModelInferRequest(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for tensor in request.inputs
        ],
        outputs=[_wanted(name, request.classification.get(name)) for name in request.outputs],
        raw_input_contents=[bytes(tensor.data) for tensor in request.inputs],
    )
    for name, value in request.parameters.items():
        _set_parameter(message.parameters[name], name, value)
    if request.priority:
        message.parameters["priority"].uint64_param = request.priority
    return message


def infer_result(message: pb.ModelInferResponse) -> InferResult:
    """The answer; outputs are views of the message's bytes."""
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise InternalError(f"answer has {len(message.outputs)} outputs, but {len(raw)} raw contents")
    arrays: dict[str, NDArray[Any]] = {}
    for index, output in enumerate(message.outputs):
        if raw:
            arrays[output.name] = decode(output.datatype, output.shape, raw[index])
        else:
            elements = getattr(output.contents, _CONTENTS.get(output.datatype, ""), ())
            arrays[output.name] = from_elements(output.datatype, output.shape, elements)
    return InferResult(
        model_name=message.model_name,
        model_version=message.model_version,
        arrays=arrays,
        id=message.id,
        parameters=_parameters(message.parameters),
    )


def stream_reply(data: bytes) -> InferResult | MlserveError:
    """One message of a stream: an answer, or the error of one request."""
    message = parse(pb.ModelStreamInferResponse, data)
    if not message.error_message:
        return infer_result(message.infer_response)
    code = _parameters(message.infer_response.parameters).get(CODE_HEADER)
    return error_class(code=str(code) if code else None)(message.error_message)


def model_metadata(message: pb.ModelMetadataResponse) -> ModelMetadata:
    """A model's metadata."""

    def tensors(found: Sequence[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in found)

    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=tensors(message.inputs),
        outputs=tensors(message.outputs),
        properties=dict(message.properties),
    )


def server_metadata(message: pb.ServerMetadataResponse) -> ServerMetadata:
    """The server's metadata."""
    return ServerMetadata(message.name, message.version, tuple(message.extensions))


def management_message(operation: Operation[Any]) -> Message:
    """The request of a call that manages the server.

    Raises:
        InvalidArgumentError: A value does not fit its field.
    """
    kind: Callable[..., Message] = getattr(pb, f"{operation.rpc}Request")
    try:
        return kind(**operation.message)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"a value cannot be sent in {operation.rpc}: {error}") from error


def management_result(operation: Operation[Found], data: bytes) -> Found:
    """What such a call returns.

    Raises:
        InternalError: The answer is broken.
    """
    answer: type[Message] = getattr(pb, f"{operation.rpc}Response")
    return operation.result(document_of(parse(answer, data)))


def document_of(message: Message) -> dict[str, Any]:
    """A message's fields as plain values, as HTTP has them: enums by name, and all fields but unset messages."""
    fields = message.DESCRIPTOR.fields
    return {
        field.name: _plain(field, getattr(message, field.name))
        for field in fields
        if not field.has_presence or message.HasField(field.name)
    }


def error_of(status: int, text: str, trailers: Iterable[tuple[str, str | bytes]] | None) -> MlserveError:
    """The error for a gRPC status, with the server's own text."""
    code = next((str(value) for name, value in trailers or () if name == CODE_HEADER), None)
    # gRPC's own words for a server that is not there name no server.
    found = f"cannot reach the server: {text}" if text.startswith(_NO_CONNECTION) else text
    return error_class(code=code, grpc_code=status)(found)


def parse(kind: type[Answer], data: bytes) -> Answer:
    """Bytes to a message.

    Raises:
        InternalError: They are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InternalError(f"answer is no {kind.DESCRIPTOR.name}: {error}") from error


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return document_of(value)
    if isinstance(value, Mapping):
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _plain(entry, item) for key, item in value.items()}
    if not isinstance(value, str | bytes | int | float):
        return [_plain(field, item) for item in value]
    return field.enum_type.values_by_number[value].name if field.enum_type else value


def _wanted(output: str, classes: int | None) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    """An output that is asked for."""
    parameters = {} if classes is None else {"classification": pb.InferParameter(int64_param=classes)}
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=output, parameters=parameters)


def _set_parameter(target: pb.InferParameter, name: str, value: ParameterValue) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        if not -_INT64_LIMIT <= value < _INT64_LIMIT:
            raise InvalidArgumentError(f"parameter '{name}' is {value}, which does not fit 64 bits")
        target.int64_param = value
    elif isinstance(value, float):
        target.double_param = value
    elif isinstance(value, str):
        target.string_param = value
    else:
        raise InvalidArgumentError(f"parameter '{name}' is of type {type(value).__name__}; use bool, int, float or str")


def _parameters(found: Mapping[str, pb.InferParameter]) -> dict[str, ParameterValue]:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in found.items()}
    return {name: cast("ParameterValue", getattr(found[name], field)) for name, field in chosen.items() if field}
