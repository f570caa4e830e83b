"""The blocking client's calls that manage a server; `Client` inherits them."""

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


class ManagementCalls:
    """What can be asked of a server besides inference, health and metadata.

    Each call takes `timeout_s`, its deadline instead of the client's. Loading and unloading take as long as they take
    unless a deadline is given.
    """

    def _manage(self, operation: Operation[Found], timeout_s: float | None) -> Found:
        raise NotImplementedError

    def model_config(self, model: str, *, version: str = "", timeout_s: float | None = None) -> dict[str, Any]:
        """The configuration that a model is served with, in the names of the protocol's ModelConfig."""
        return self._manage(repository.model_config(model, version), timeout_s)

    def statistics(
        self, model: str = "", *, version: str = "", timeout_s: float | None = None
    ) -> list[ModelStatistics]:
        """What was counted for each version of a model, or for all models."""
        return self._manage(repository.statistics(model, version), timeout_s)

    def models(self, *, ready: bool = False, timeout_s: float | None = None) -> list[ModelIndex]:
        """The models that the server knows and their states; with `ready`, only what is ready."""
        return self._manage(repository.models(ready=ready), timeout_s)

    def load_model(
        self,
        model: str,
        *,
        config: ModelConfig | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Loads a model, or loads it again; returns when it is ready. The server must allow it.

        Args:
            model: Name of the model.
            config: Instead of the repository's configuration, as a mapping or as JSON text.
            files: Instead of the repository's files, by their path below the model: `{"1/model.onnx": data}`. They
                need a configuration with them.
            timeout_s: Deadline; by default the call waits until the model is loaded.

        Raises:
            MlserveError: The model cannot be loaded; what was served before still is.
        """
        self._manage(repository.load_model(model, config, files), timeout_s)

    def unload_model(self, model: str, *, unload_dependents: bool = False, timeout_s: float | None = None) -> None:
        """Unloads a model. The server must allow it.

        Args:
            model: Name of the model.
            unload_dependents: Unload also the models that only it needs.
            timeout_s: Deadline; by default there is none.
        """
        self._manage(repository.unload_model(model, unload_dependents=unload_dependents), timeout_s)

    def trace_settings(
        self, changes: TraceChanges | None = None, *, model: str = "", timeout_s: float | None = None
    ) -> TraceSettings:
        """The trace settings of the server, or of one model, after the changes that are given.

        Args:
            changes: New values by name, for example `{"trace_level": ["TIMESTAMPS"]}`; `None` as a value clears it.
            model: A model whose own settings are meant.
            timeout_s: Deadline.
        """
        return self._manage(settings.trace_settings(model, changes), timeout_s)

    def log_settings(self, changes: LogSettings | None = None, *, timeout_s: float | None = None) -> LogSettings:
        """The log settings, after the changes that are given, for example `{"log_verbose_level": 1}`."""
        return self._manage(settings.log_settings(changes), timeout_s)

    def system_shared_memory(
        self, name: str = "", *, timeout_s: float | None = None
    ) -> dict[str, SystemSharedMemoryRegion]:
        """Registered regions of the machine's shared memory by name: one, or all."""
        return self._manage(shared_memory.system_shared_memory(name), timeout_s)

    def register_system_shared_memory(
        self, name: str, key: str, byte_size: int, *, offset: int = 0, timeout_s: float | None = None
    ) -> None:
        """Registers a region of the machine's shared memory under a name.

        Args:
            name: Name that requests use.
            key: Name of the shared memory object, as `shm_open` takes it.
            byte_size: Size of the region.
            offset: Where in the object it begins.
            timeout_s: Deadline.
        """
        operation = shared_memory.register_system_shared_memory(name, key, byte_size, offset)
        self._manage(operation, timeout_s)

    def unregister_system_shared_memory(self, name: str = "", *, timeout_s: float | None = None) -> None:
        """Forgets one region of the machine's shared memory, or all."""
        self._manage(shared_memory.unregister_system_shared_memory(name), timeout_s)

    def cuda_shared_memory(
        self, name: str = "", *, timeout_s: float | None = None
    ) -> dict[str, CudaSharedMemoryRegion]:
        """Registered regions of GPU memory by name: one, or all."""
        return self._manage(shared_memory.cuda_shared_memory(name), timeout_s)

    def register_cuda_shared_memory(
        self, name: str, raw_handle: bytes, byte_size: int, *, device_id: int = 0, timeout_s: float | None = None
    ) -> None:
        """Registers a region of GPU memory under a name.

        Args:
            name: Name that requests use.
            raw_handle: The bytes of its `cudaIpcMemHandle_t`.
            byte_size: Size of the region.
            device_id: GPU that holds it.
            timeout_s: Deadline.
        """
        operation = shared_memory.register_cuda_shared_memory(name, raw_handle, device_id, byte_size)
        self._manage(operation, timeout_s)

    def unregister_cuda_shared_memory(self, name: str = "", *, timeout_s: float | None = None) -> None:
        """Forgets one region of GPU memory, or all."""
        self._manage(shared_memory.unregister_cuda_shared_memory(name), timeout_s)
