"""mlserve serves models over the Open Inference Protocol.

Importing the package costs next to nothing: what a name needs (numpy, grpcio, protobuf) is imported when the name is
first used. Only names are joined here; nothing is computed.
"""

from __future__ import annotations

# Type checkers take it for true; importing typing would double what the package costs to import.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mlserve._core import __version__
    from mlserve.client.async_client import AsyncClient
    from mlserve.client.sync_client import Client
    from mlserve.errors import MlserveError
    from mlserve.serving.server import Server
    from mlserve.statistics import ModelStatistics
    from mlserve.types import (
        InferRequest,
        InferResult,
        ModelIndex,
        ModelMetadata,
        ServerMetadata,
        Tensor,
        TensorMetadata,
    )

__all__ = [
    "AsyncClient",
    "Client",
    "InferRequest",
    "InferResult",
    "MlserveError",
    "ModelIndex",
    "ModelMetadata",
    "ModelStatistics",
    "Server",
    "ServerMetadata",
    "Tensor",
    "TensorMetadata",
    "__version__",
]

_HOMES = {
    "AsyncClient": "mlserve.client.async_client",
    "Client": "mlserve.client.sync_client",
    "InferRequest": "mlserve.types",
    "InferResult": "mlserve.types",
    "MlserveError": "mlserve.errors",
    "ModelIndex": "mlserve.types",
    "ModelMetadata": "mlserve.types",
    "ModelStatistics": "mlserve.statistics",
    "Server": "mlserve.serving.server",
    "ServerMetadata": "mlserve.types",
    "Tensor": "mlserve.types",
    "TensorMetadata": "mlserve.types",
    "__version__": "mlserve._core",
}


def __getattr__(name: str) -> object:
    """Imports the home of a public name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 -- not needed before a name is used

    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
