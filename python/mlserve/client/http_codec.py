"""The protocol's HTTP bodies to and from our types; tensors travel in the binary extension."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlserve.errors import CODE_HEADER, InternalError, MlserveError, error_class
from mlserve.tensors import decode, from_elements
from mlserve.types import InferResult, ModelMetadata, ServerMetadata, TensorMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlserve.client.operation import Found, Operation
    from mlserve.client.prepare import CallOptions, WireRequest
    from mlserve.types import Compression

JSON_LENGTH_HEADER = "inference-header-content-length"
DEADLINE_HEADER = "x-request-timeout-ms"
LIVE_PATH = "/v2/health/live"
READY_PATH = "/v2/health/ready"
SERVER_PATH = "/v2"


@dataclass(frozen=True)
class HttpRequest:
    """A request without its connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class HttpAnswer:
    """An answer, read completely; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(path: str, call: CallOptions) -> HttpRequest:
    """A request without a body."""
    return HttpRequest("GET", path, _headers(call))


def model_path(name: str, version: str = "", tail: str = "") -> str:
    """The path of a model, or of what `tail` names beneath it."""
    parts = ["/v2/models", quote(name, safe="")]
    parts += ["versions", quote(version, safe="")] if version else []
    return "/".join([*parts, tail] if tail else parts)


def infer_request(request: WireRequest, call: CallOptions, compression: Compression | None) -> HttpRequest:
    """The request's body: JSON, then the tensors' bytes in order."""
    parameters: dict[str, Any] = dict(request.parameters)
    if request.priority:
        parameters["priority"] = request.priority
    if not request.outputs:
        parameters["binary_data_output"] = True
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in request.inputs
        ]
    }
    if request.id:
        document["id"] = request.id
    if parameters:
        document["parameters"] = parameters
    if request.outputs:
        document["outputs"] = [{"name": name, "parameters": _wanted(request, name)} for name in request.outputs]
    head = json.dumps(document, separators=(",", ":")).encode()
    body = b"".join([head, *(tensor.data for tensor in request.inputs)])
    headers = {**_headers(call), JSON_LENGTH_HEADER: str(len(head)), "content-type": "application/octet-stream"}
    if compression:
        headers |= {"content-encoding": compression, "accept-encoding": compression}
        body = gzip.compress(body, mtime=0) if compression == "gzip" else zlib.compress(body)
    return HttpRequest("POST", model_path(request.model, request.version, "infer"), headers, body)


def infer_result(answer: HttpAnswer) -> InferResult:
    """The answer's outputs, binary or JSON as the server chose.

    Raises:
        MlserveError: The server refused, or its answer is broken.
    """
    answer = inflate(answer)
    raise_for(answer)
    length = answer.headers.get(JSON_LENGTH_HEADER, "")
    cut = int(length) if length.isdecimal() else len(answer.body)
    document = read_json(answer.body[:cut])
    blobs = memoryview(answer.body)[cut:]
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for output in document["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                elements = _flat(output["data"], len(output["shape"]))
                arrays[output["name"]] = from_elements(output["datatype"], output["shape"], elements)
            else:
                arrays[output["name"]] = decode(output["datatype"], output["shape"], blobs[:size])
                blobs = blobs[size:]
        return InferResult(
            model_name=document["model_name"],
            model_version=document.get("model_version", ""),
            arrays=arrays,
            id=document.get("id", ""),
            parameters=document.get("parameters", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InternalError(f"answer lacks a part of the protocol: {error!r}") from error


def model_metadata(answer: HttpAnswer) -> ModelMetadata:
    """A model's metadata."""
    raise_for(answer)
    return metadata_of(read_json(answer.body))


def metadata_of(document: Mapping[str, Any]) -> ModelMetadata:
    """A model's metadata from its JSON."""

    def tensors(found: Sequence[Mapping[str, Any]]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(item["name"], item["datatype"], tuple(item["shape"])) for item in found)

    return ModelMetadata(
        name=document["name"],
        versions=tuple(document.get("versions", ())),
        platform=document.get("platform", ""),
        inputs=tensors(document["inputs"]),
        outputs=tensors(document["outputs"]),
        properties=document.get("properties", {}),
    )


def server_metadata(answer: HttpAnswer) -> ServerMetadata:
    """The server's metadata."""
    raise_for(answer)
    document = read_json(answer.body)
    return ServerMetadata(document["name"], document["version"], tuple(document.get("extensions", ())))


def management_request(operation: Operation[Any], call: CallOptions) -> HttpRequest:
    """The request of a call that manages the server."""
    if operation.body is None:
        return get(operation.path, call)
    body = json.dumps(operation.body, separators=(",", ":")).encode()
    return HttpRequest("POST", operation.path, {**_headers(call), "content-type": "application/json"}, body)


def management_result(operation: Operation[Found], answer: HttpAnswer) -> Found:
    """What such a call returns; an answer without a body has nothing to tell.

    Raises:
        MlserveError: The server refused, or its answer is broken.
    """
    answer = inflate(answer)
    raise_for(answer)
    return operation.result(read_json(answer.body, kinds=(dict, list)) if answer.body else {}, is_http=True)


def inflate(answer: HttpAnswer) -> HttpAnswer:
    """The answer without its content encoding."""
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return answer
    try:
        body = gzip.decompress(answer.body) if encoding == "gzip" else zlib.decompress(answer.body)
    except (OSError, EOFError, zlib.error) as error:
        raise InternalError(f"answer does not inflate as {encoding}: {error}") from error
    return HttpAnswer(answer.status, {**answer.headers, "content-encoding": "identity"}, body)


def raise_for(answer: HttpAnswer) -> None:
    """Raises the error that an answer tells, with the server's own text."""
    if answer.status < 400:
        return
    raise error_of(inflate(answer))


def error_of(answer: HttpAnswer) -> MlserveError:
    """The error of a refusal."""
    try:
        text = str(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError):
        text = answer.body.decode(errors="replace").strip() or f"the server answered with status {answer.status}"
    return error_class(code=answer.headers.get(CODE_HEADER), http_status=answer.status)(text)


def read_json(data: bytes, kinds: tuple[type, ...] = (dict,)) -> Any:
    """A JSON object, or what else is allowed.

    Raises:
        InternalError: The answer is none.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InternalError(f"answer is not JSON: {error}") from error
    if not isinstance(document, kinds):
        raise InternalError(f"answer is JSON of another kind: {type(document).__name__}")
    return document


def _headers(call: CallOptions) -> dict[str, str]:
    headers = {name.lower(): value for name, value in call.headers.items()}
    if call.timeout_s is not None:
        headers[DEADLINE_HEADER] = str(max(1, round(call.timeout_s * 1000)))
    return headers


def _wanted(request: WireRequest, output: str) -> dict[str, Any]:
    """Parameters of an output that is asked for."""
    classes = request.classification.get(output)
    return {"binary_data": True} if classes is None else {"binary_data": True, "classification": classes}


def _flat(data: Any, rank: int) -> list[Any]:
    """Row-major elements of `data`, which may be nested up to `rank` deep or flat already."""
    for _ in range(rank - 1):
        if not data or not isinstance(data[0], list):
            break
        data = [element for row in data for element in row]
    return list(data)
