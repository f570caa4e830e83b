"""What `mlserve infer` does: read a request file in any of its forms, ask, write the answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlserve.client.sync_client import Client
from mlserve.errors import InternalError, InvalidArgumentError
from mlserve.tensors import datatype_of, from_elements
from mlserve.types import InferResult, Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mlserve.types import Datatype, Inputs, ParameterValue, Protocol

# Requests of the HTTP form carry this for the transport, which the client chooses itself.
_TRANSPORT_PARAMETERS = frozenset({"binary_data_output"})


@dataclass(frozen=True)
class Question:
    """What a request file asks."""

    inputs: Inputs
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    request_id: str = ""


def ask(model: str, file: Path, *, url: str, protocol: str | None, version: str, timeout_s: float) -> InferResult:
    """Sends the request in `file`.

    Raises:
        MlserveError: The file cannot be understood, or the server refused.
    """
    question = read_question(file)
    with Client(url, protocol=cast("Protocol | None", protocol), timeout_s=timeout_s) as client:
        return client.infer(
            model,
            question.inputs,
            version=version,
            outputs=question.outputs,
            parameters=question.parameters,
            request_id=question.request_id,
        )


def read_question(file: Path) -> Question:
    """Reads .npz by its name, everything else as JSON.

    Raises:
        InvalidArgumentError: It is neither.
    """
    if file.suffix == ".npz":
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return Question({name: arrays[name] for name in arrays.files})
        except (ValueError, OSError) as error:
            raise InvalidArgumentError(f"{file.name} is no .npz file of plain arrays: {error}") from error
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{file.name} is not JSON: {error}") from error
    return question_of(document)


def question_of(document: Any) -> Question:
    """Tells the three JSON forms apart: the protocol's body, values by input name, bare values.

    Raises:
        InvalidArgumentError: A part of the protocol's body is missing or wrong.
    """
    if not isinstance(document, dict):
        return Question(document)
    inputs = document.get("inputs")
    if not (isinstance(inputs, list) and inputs and all(isinstance(item, dict) for item in inputs)):
        return Question(document)
    try:
        tensors = {item["name"]: _tensor(item) for item in inputs}
        outputs = tuple(item["name"] for item in document.get("outputs", ()))
    except (KeyError, TypeError) as error:
        raise InvalidArgumentError(f"an input or output lacks {error}") from error
    given = document.get("parameters", {})
    parameters = {name: value for name, value in given.items() if name not in _TRANSPORT_PARAMETERS}
    return Question(tensors, outputs, parameters, document.get("id", ""))


def answer_text(result: InferResult) -> str:
    """The answer as the protocol's JSON body; readable, one output a line."""
    head = {"model_name": result.model_name, "model_version": result.model_version}
    lines = [json.dumps(key) + ": " + json.dumps(value) for key, value in head.items()]
    if result.id:
        lines.insert(0, f'"id": {json.dumps(result.id)}')
    if result.parameters:
        lines.append(f'"parameters": {json.dumps(dict(result.parameters))}')
    outputs = ",\n    ".join(json.dumps(_output(name, array)) for name, array in result.items())
    lines.append(f'"outputs": [\n    {outputs}\n  ]')
    return "{\n  " + ",\n  ".join(lines) + "\n}"


def write_npz(path: Path, result: InferResult) -> None:
    """The outputs as one .npz file; elements of BYTES become fixed-width bytes, which numpy stores plainly."""
    arrays = {name: _storable(array) for name, array in result.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _tensor(item: Mapping[str, Any]) -> Tensor:
    datatype, shape = item["datatype"], item["shape"]
    elements = np.asarray(item["data"], dtype=np.object_).ravel().tolist()
    try:
        return Tensor(from_elements(datatype, shape, elements), cast("Datatype", datatype))
    except (InternalError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(
            f"data of input '{item['name']}' is no {datatype} of shape {shape}: {error}"
        ) from error


def _output(name: str, array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype.kind == "O":
        data = [element.decode(errors="replace") for element in array.ravel().tolist()]
    elif array.dtype.name == "bfloat16":
        data = array.astype(np.float32).ravel().tolist()
    else:
        data = array.ravel().tolist()
    return {"name": name, "datatype": datatype_of(name, array), "shape": list(array.shape), "data": data}


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "O":
        return array.astype(np.bytes_)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
