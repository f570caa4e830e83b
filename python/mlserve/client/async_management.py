"""The asynchronous client's calls that manage a server; `AsyncClient` inherits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlserve.client import repository, settings, shared_memory

if TYPE_CHECKING:
    from mlserve.client.operation import Found, Operation
    from mlserve.statistics import ModelStatistics
    from mlserve.types import (
        CudaSharedMemoryRegion,
        LogSettings,
        ModelConfig,
        ModelIndex,
        SystemSharedMemoryRegion,
        TraceChanges,
        TraceSettings,
    )


class AsyncManagementCalls:
    """The calls of `ManagementCalls`, awaited; arguments and results are described there."""

    async def _manage(self, operation: Operation[Found], timeout_s: float | None) -> Found:
        raise NotImplementedError

    async def model_config(self, model: str, *, version: str = "", timeout_s: float | None = None) -> dict[str, Any]:
        """The configuration that a model is served with, in the names of the protocol's ModelConfig."""
        return await self._manage(repository.model_config(model, version), timeout_s)

    async def statistics(
        self, model: str = "", *, version: str = "", timeout_s: float | None = None
    ) -> list[ModelStatistics]:
        """What was counted for each version of a model, or for all models."""
        return await self._manage(repository.statistics(model, version), timeout_s)

    async def models(self, *, ready: bool = False, timeout_s: float | None = None) -> list[ModelIndex]:
        """The models that the server knows and their states; with `ready`, only what is ready."""
        return await self._manage(repository.models(ready=ready), timeout_s)

    async def load_model(
        self,
        model: str,
        *,
        config: ModelConfig | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Loads a model, or loads it again; returns when it is ready. The server must allow it."""
        await self._manage(repository.load_model(model, config, files), timeout_s)

    async def unload_model(
        self, model: str, *, unload_dependents: bool = False, timeout_s: float | None = None
    ) -> None:
        """Unloads a model. The server must allow it."""
        await self._manage(repository.unload_model(model, unload_dependents=unload_dependents), timeout_s)

    async def trace_settings(
        self, changes: TraceChanges | None = None, *, model: str = "", timeout_s: float | None = None
    ) -> TraceSettings:
        """The trace settings of the server, or of one model, after the changes that are given."""
        return await self._manage(settings.trace_settings(model, changes), timeout_s)

    async def log_settings(self, changes: LogSettings | None = None, *, timeout_s: float | None = None) -> LogSettings:
        """The log settings, after the changes that are given, for example `{"log_verbose_level": 1}`."""
        return await self._manage(settings.log_settings(changes), timeout_s)

    async def system_shared_memory(
        self, name: str = "", *, timeout_s: float | None = None
    ) -> dict[str, SystemSharedMemoryRegion]:
        """Registered regions of the machine's shared memory by name: one, or all."""
        return await self._manage(shared_memory.system_shared_memory(name), timeout_s)

    async def register_system_shared_memory(
        self, name: str, key: str, byte_size: int, *, offset: int = 0, timeout_s: float | None = None
    ) -> None:
        """Registers a region of the machine's shared memory under a name."""
        operation = shared_memory.register_system_shared_memory(name, key, byte_size, offset)
        await self._manage(operation, timeout_s)

    async def unregister_system_shared_memory(self, name: str = "", *, timeout_s: float | None = None) -> None:
        """Forgets one region of the machine's shared memory, or all."""
        await self._manage(shared_memory.unregister_system_shared_memory(name), timeout_s)

    async def cuda_shared_memory(
        self, name: str = "", *, timeout_s: float | None = None
    ) -> dict[str, CudaSharedMemoryRegion]:
        """Registered regions of GPU memory by name: one, or all."""
        return await self._manage(shared_memory.cuda_shared_memory(name), timeout_s)

    async def register_cuda_shared_memory(
        self, name: str, raw_handle: bytes, byte_size: int, *, device_id: int = 0, timeout_s: float | None = None
    ) -> None:
        """Registers a region of GPU memory under a name."""
        operation = shared_memory.register_cuda_shared_memory(name, raw_handle, device_id, byte_size)
        await self._manage(operation, timeout_s)

    async def unregister_cuda_shared_memory(self, name: str = "", *, timeout_s: float | None = None) -> None:
        """Forgets one region of GPU memory, or all."""
        await self._manage(shared_memory.unregister_cuda_shared_memory(name), timeout_s)
