"""Unmodified `tritonclient` behind one face: five ways to ask, one way to read the answer."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from tests.graphs import DATATYPES
from tests.reference import Arrays

# Longer than any answer takes on a busy machine, shorter than the time a test has.
ANSWER_LIMIT_S = 90.0


@dataclass(frozen=True)
class Asked:
    """One inference, as a test writes it down.

    Attributes:
        datatypes: Of the inputs, by name.
        binary: Whether tensors travel as bytes beside the JSON (HTTP only).
        classes: How many results the outputs are to be classified into; 0: the values themselves.
        options: Further keyword arguments of the client's own `infer`.
    """

    model: str
    inputs: Arrays
    datatypes: Mapping[str, str]
    outputs: Sequence[str] = ()
    binary: bool = True
    classes: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An answer: arrays as the server's bytes say (BF16 as uint16, BYTES as objects), and its head."""

    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]]
    parameters: dict[str, Any]
    model_name: str
    model_version: str
    id: str


Ask: TypeAlias = Callable[[str, Asked], Reply]


def grpc(address: str, asked: Asked) -> Reply:
    """The blocking gRPC client."""
    with tritonclient.grpc.InferenceServerClient(address) as client:
        return _grpc_reply(client.infer(**_arguments(tritonclient.grpc, asked)))


def grpc_aio(address: str, asked: Asked) -> Reply:
    """The asyncio gRPC client."""

    async def ask() -> Any:
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            return await client.infer(**_arguments(tritonclient.grpc.aio, asked))

    return _grpc_reply(asyncio.run(ask()))


def stream(address: str, asked: Asked) -> Reply:
    """One request on a stream of the blocking gRPC client."""
    (reply,) = stream_all(address, [asked])
    if isinstance(reply, Exception):
        raise reply
    return reply


def http(address: str, asked: Asked) -> Reply:
    """The blocking HTTP client."""
    with tritonclient.http.InferenceServerClient(address) as client:
        return _http_reply(client.infer(**_arguments(tritonclient.http, asked)))


def http_aio(address: str, asked: Asked) -> Reply:
    """The asyncio HTTP client."""

    async def ask() -> Any:
        async with tritonclient.http.aio.InferenceServerClient(address) as client:
            return await client.infer(**_arguments(tritonclient.http.aio, asked))

    return _http_reply(asyncio.run(ask()))


MODULES: dict[str, Any] = {
    "grpc": tritonclient.grpc,
    "grpc_aio": tritonclient.grpc.aio,
    "http": tritonclient.http,
    "http_aio": tritonclient.http.aio,
}
CLIENTS: dict[str, Ask] = {"grpc": grpc, "grpc_aio": grpc_aio, "stream": stream, "http": http, "http_aio": http_aio}


def stream_all(
    address: str, requests: Sequence[Asked], headers: Mapping[str, str] | None = None
) -> list[Reply | Exception]:
    """Sends all requests on one stream before it reads, and returns the replies in the order they came."""
    replies: queue.Queue[Reply | Exception] = queue.Queue()

    def received(result: Any, error: Any) -> None:
        replies.put(error if error is not None else _grpc_reply(result))

    with tritonclient.grpc.InferenceServerClient(address) as client:
        client.start_stream(received, headers=dict(headers or {}))
        for asked in requests:
            client.async_stream_infer(**_arguments(tritonclient.grpc, asked))
        return [replies.get(timeout=ANSWER_LIMIT_S) for _ in requests]


async def stream_aio(address: str, requests: Sequence[Asked]) -> list[Reply | Exception]:
    """The same through the asyncio client: one stream, and the replies in the order they came."""

    async def asked() -> AsyncIterator[dict[str, Any]]:
        for request in requests:
            yield _arguments(tritonclient.grpc.aio, request)

    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
        replies = client.stream_infer(asked())
        return [error if error is not None else _grpc_reply(result) async for result, error in replies]


def manage(client: str, address: str, method: str, *args: Any, **kwargs: Any) -> Any:
    """Calls any other method of the client named so; gRPC answers as JSON."""
    module = MODULES[client]
    as_json = {"as_json": True} if client.startswith("grpc") and method.startswith(("get_", "update_")) else {}
    if not client.endswith("aio"):
        with module.InferenceServerClient(address) as opened:
            return getattr(opened, method)(*args, **kwargs, **as_json)

    async def call() -> Any:
        async with module.InferenceServerClient(address) as opened:
            return await getattr(opened, method)(*args, **kwargs, **as_json)

    return asyncio.run(call())


def _arguments(module: Any, asked: Asked) -> dict[str, Any]:
    is_http = module.__name__.startswith("tritonclient.http")
    inputs = []
    for name, array in asked.inputs.items():
        datatype = asked.datatypes[name]
        tensor = module.InferInput(name, list(array.shape), datatype)
        sent = array.view(ml_dtypes.bfloat16) if datatype == "BF16" else array
        tensor.set_data_from_numpy(sent, **({"binary_data": asked.binary} if is_http else {}))
        inputs.append(tensor)
    wanted: dict[str, Any] = {"binary_data": asked.binary} if is_http else {}
    outputs = [module.InferRequestedOutput(name, class_count=asked.classes, **wanted) for name in asked.outputs]
    return {"model_name": asked.model, "inputs": inputs, "outputs": outputs or None, **asked.options}


def _array(result: Any, name: str, datatype: str) -> np.ndarray[Any, np.dtype[Any]]:
    found = result.as_numpy(name)
    assert found is not None, f"the client finds no output '{name}'"
    array = np.asarray(found)
    if datatype == "BF16":
        return np.ascontiguousarray(array).view(np.uint16)
    if datatype == "BYTES":
        texts = np.empty(array.size, np.object_)
        texts[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return texts.reshape(array.shape)
    return array.astype(DATATYPES[datatype].carrier, copy=False)


def _grpc_reply(result: Any) -> Reply:
    response = result.get_response()
    arrays = {output.name: _array(result, output.name, output.datatype) for output in response.outputs}
    parameters = {
        name: getattr(item, item.WhichOneof("parameter_choice")) for name, item in response.parameters.items()
    }
    return Reply(arrays, parameters, response.model_name, response.model_version, response.id)


def _http_reply(result: Any) -> Reply:
    response = result.get_response()
    arrays = {output["name"]: _array(result, output["name"], output["datatype"]) for output in response["outputs"]}
    return Reply(
        arrays,
        response.get("parameters", {}),
        response["model_name"],
        response["model_version"],
        response.get("id", ""),
    )
