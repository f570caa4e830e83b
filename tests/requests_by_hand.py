"""One inference written for both transports: as a protobuf message, as JSON, and as JSON with binary tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlserve.client._proto import inference_pb2
from mlserve.tensors import join_bytes


@dataclass(frozen=True)
class Tensor:
    """An input as it is sent, true or not.

    Attributes:
        data: Its bytes.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes = b""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, array: np.ndarray[Any, np.dtype[Any]], datatype: str) -> Tensor:
        """A sound tensor."""
        data = join_bytes(name, array.ravel()) if datatype == "BYTES" else array.tobytes()
        return cls(name, datatype, array.shape, data)

    @property
    def is_shared(self) -> bool:
        """Whether it lies in shared memory, so that `data` is not sent."""
        return "shared_memory_region" in self.parameters


@dataclass(frozen=True)
class Inference:
    """A request; `outputs` are names, each with parameters."""

    model: str
    inputs: Sequence[Tensor]
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    id: str = ""

    @property
    def target(self) -> str:
        """The HTTP route."""
        version = f"/versions/{self.version}" if self.version else ""
        return f"/v2/models/{self.model}{version}/infer"

    def message(self) -> bytes:
        """The protobuf message, tensors raw."""
        request = inference_pb2.ModelInferRequest(model_name=self.model, model_version=self.version, id=self.id)
        _set(request.parameters, self.parameters)
        for tensor in self.inputs:
            added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            _set(added.parameters, tensor.parameters)
            if not tensor.is_shared:
                request.raw_input_contents.append(tensor.data)
        for name, parameters in self.outputs.items():
            _set(request.outputs.add(name=name).parameters, parameters)
        return request.SerializeToString()

    def body(self) -> tuple[bytes, dict[str, str]]:
        """The HTTP body with binary tensors, and the header field that tells where they begin."""
        document: dict[str, Any] = {"inputs": []}
        if self.id:
            document["id"] = self.id
        if self.parameters:
            document["parameters"] = dict(self.parameters)
        for tensor in self.inputs:
            size = {} if tensor.is_shared else {"binary_data_size": len(tensor.data)}
            parameters = {**size, **tensor.parameters}
            described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            document["inputs"].append({**described, "parameters": parameters})
        if self.outputs:
            document["outputs"] = [{"name": name, "parameters": dict(found)} for name, found in self.outputs.items()]
        text = json.dumps(document).encode()
        blobs = b"".join(tensor.data for tensor in self.inputs if not tensor.is_shared)
        return text + blobs, {"inference-header-content-length": str(len(text))}


def _set(parameters: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(parameters[name], kind, value)
