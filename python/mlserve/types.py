"""What goes into a call and comes out of it, for the clients and the in-process server alike.

Plain frozen classes; numpy is needed only by whoever fills them. What statistics are made of is in `statistics.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Datatype: TypeAlias = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
Protocol: TypeAlias = Literal["grpc", "http"]
Compression: TypeAlias = Literal["gzip", "deflate"]
ParameterValue: TypeAlias = bool | int | float | str
# A model's configuration: the protocol's ModelConfig as a mapping, or as JSON text.
ModelConfig: TypeAlias = Mapping[str, Any] | str
# `trace_level` is a list, the others are texts; to change one, `None` clears it.
TraceSettings: TypeAlias = dict[str, str | list[str]]
TraceChanges: TypeAlias = Mapping[str, str | int | Sequence[str] | None]
LogSettings: TypeAlias = Mapping[str, bool | int | str]


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array with a data type that its dtype does not tell.

    Needed for BF16 held as its upper 16 bits in a uint16 array: `Tensor(bits, "BF16")`.
    """

    data: NDArray[Any]
    datatype: Datatype


if TYPE_CHECKING:
    TensorLike: TypeAlias = Tensor | ArrayLike
    Inputs: TypeAlias = TensorLike | Mapping[str, TensorLike]


@dataclass(frozen=True, eq=False)
class InferRequest:
    """One inference of a stream.

    Attributes:
        model: Name of the model.
        inputs: Arrays by input name, or one array for a model with a single input.
        version: Version to ask; empty lets the server choose.
        outputs: Outputs to return; none means all.
        parameters: Request parameters of the protocol.
        priority: 1 is the highest, 0 the model's default.
        request_id: Comes back in the answer and in the server's logs.
        classification: Outputs to return as their best classes, with how many of them.
    """

    model: str
    inputs: Inputs
    version: str = ""
    outputs: Sequence[str] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    priority: int = 0
    request_id: str = ""
    classification: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InferResult(Mapping[str, "NDArray[Any]"]):
    """The answer to one inference: a mapping from output names to arrays.

    Attributes:
        model_name: Model that answered.
        model_version: Version that answered.
        id: The request's id, empty if it had none.
        parameters: Response parameters of the protocol.
        arrays: Outputs in the server's order. They may be read-only views of the received bytes.
    """

    model_name: str
    model_version: str
    arrays: Mapping[str, NDArray[Any]]
    id: str = ""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@dataclass(frozen=True)
class TensorMetadata:
    """Name, data type and shape of a model's input or output; -1 where the size may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives.

    Attributes:
        name: Name of the model.
        versions: Versions that are ready.
        platform: Runtime that runs it.
        inputs: What has to be sent.
        outputs: What comes back.
        properties: More about the model, for example why it is served with batch 1.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerMetadata:
    """Name, version and protocol extensions of a server."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ModelIndex:
    """A version of a model as the repository's index lists it.

    Attributes:
        name: Name of the model.
        version: Its version; empty if none was ever loaded.
        state: READY, LOADING, UNLOADING or UNAVAILABLE; empty if no version was ever loaded.
        reason: Why it is in that state; empty if there is nothing to say.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class SystemSharedMemoryRegion:
    """A registered region of the machine's shared memory; sizes in bytes."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class CudaSharedMemoryRegion:
    """A registered region of a GPU's memory; sizes in bytes."""

    name: str
    device_id: int
    byte_size: int
