"""From what the caller gave to what travels: names found, values encoded, parameters checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlserve.errors import InvalidArgumentError
from mlserve.tensors import WireTensor, encode
from mlserve.types import Tensor

if TYPE_CHECKING:
    from mlserve.types import InferRequest, Inputs, ModelMetadata, ParameterValue, TensorLike


@dataclass(frozen=True)
class WireRequest:
    """A request with its tensors as bytes, ready for either transport."""

    model: str
    version: str
    id: str
    inputs: Sequence[WireTensor]
    outputs: Sequence[str]
    parameters: Mapping[str, ParameterValue]
    priority: int
    # How many classes to return instead of the tensor, by output; each of them stands in `outputs`.
    classification: Mapping[str, int]


@dataclass(frozen=True)
class CallOptions:
    """What concerns the call and not the inference.

    Attributes:
        timeout_s: Deadline of the whole call; `None` waits as long as the server does.
        headers: Sent as HTTP headers or gRPC metadata.
    """

    timeout_s: float | None
    headers: Mapping[str, str]


def needs_metadata(inputs: Inputs) -> bool:
    """Whether the model's metadata is needed to know the input's name or the type of plain values."""
    if not isinstance(inputs, Mapping):
        return True
    return not all(isinstance(value, Tensor | np.ndarray | np.generic) for value in inputs.values())


def prepare(request: InferRequest, metadata: ModelMetadata | None) -> WireRequest:
    """Encodes a request; `metadata` must be given where `needs_metadata` says so.

    Raises:
        InvalidArgumentError: The values cannot be sent, or one array was given to a model with several inputs.
    """
    known = {tensor.name: tensor.datatype for tensor in metadata.inputs} if metadata else {}
    named = name_inputs(request.model, request.inputs, tuple(known))
    if request.priority < 0:
        raise InvalidArgumentError(f"priority is {request.priority}; 1 is the highest, 0 the model's default")
    for output, classes in request.classification.items():
        check_classes(output, classes)
    return WireRequest(
        model=request.model,
        version=request.version,
        id=request.request_id,
        inputs=[encode(name, value, known.get(name)) for name, value in named.items()],
        outputs=tuple(dict.fromkeys([*request.outputs, *request.classification])),
        parameters=dict(request.parameters),
        priority=request.priority,
        classification=dict(request.classification),
    )


def check_classes(output: str, classes: object) -> None:
    """Refuses what is no number of classes; a truth value is an int to Python."""
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise InvalidArgumentError(f"classification of '{output}' is {classes!r}; it takes a number from 1 on")


def name_inputs(model: str, inputs: Inputs, known: Sequence[str]) -> Mapping[str, TensorLike]:
    """Gives the one array of a single-input model its name; a mapping is returned as it is."""
    if isinstance(inputs, Mapping):
        return inputs
    if len(known) != 1:
        names = ", ".join(f"'{name}'" for name in known)
        raise InvalidArgumentError(
            f"model '{model}' has {len(known)} inputs ({names}); give a mapping from their names"
        )
    return {known[0]: inputs}
