"""The server inside one's own Python process: settings down, addresses and snapshots up.

Requests over the network never touch Python; `infer` is for calls from this very process.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from mlserve import _core
from mlserve.client.http_codec import metadata_of
from mlserve.client.prepare import needs_metadata, prepare
from mlserve.client.repository import config_text, read_index
from mlserve.errors import ConfigError, LifecycleError
from mlserve.serving.runtime import find_ort_library
from mlserve.statistics import read_statistics
from mlserve.tensors import decode
from mlserve.types import InferRequest, InferResult

if TYPE_CHECKING:
    from typing import Self

    from mlserve.statistics import ModelStatistics
    from mlserve.types import Inputs, ModelConfig, ModelIndex, ParameterValue

# From Python a free port is the better default: tests and notebooks run beside each other.
_PORTS = ("http_port", "grpc_port", "metrics_port")
_FORK_TEXT = (
    "an mlserve server was started before this process was forked, and its threads did not come along; start child "
    "processes with the 'spawn' method"
)


class Server:
    """Serves models from this process; a context manager that starts and stops.

    Several may live in one process. After a fork the child cannot use it: the server's threads exist in the parent
    only. Use the "spawn" start method for child processes.

    Args:
        path: One .onnx file, or a directory `name/version/model.onnx`.
        models: Models by name: a path, or a table of settings as in `[models.NAME]`.
        settings: The other tables of mlserve.toml: `server={"http_port": 8000}, limits={…}, log={…}`. Ports are free
            ones unless given.

    Raises:
        ConfigError: A setting is unknown or its value is not allowed.

    Example:
        >>> with Server("examples/models") as server:  # doctest: +SKIP
        ...     print(server.grpc_url)
    """

    # A fork concerns the whole process: the runtime's threads are shared by all servers in it.
    _served_by: ClassVar[int | None] = None

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        models: Mapping[str, str | PathLike[str] | Mapping[str, Any]] | None = None,
        **settings: Mapping[str, Any],
    ) -> None:
        _check_process(Server._served_by)
        text = json.dumps(merge_settings(path, models or {}, settings), default=fspath)
        self._core = _core.Server(text, find_ort_library())
        self._process = os.getpid()

    def start(self) -> None:
        """Loads and warms the models and opens the ports; returns when the server is ready.

        Raises:
            ModelLoadError: No model could be loaded.
            LifecycleError: It was started before, or another thread stopped it meanwhile.
            KeyboardInterrupt: After Ctrl-C; the server is stopped then.
        """
        _check_process(self._process)
        if Server._served_by != self._process:
            os.register_at_fork(after_in_child=_core.forked)
        Server._served_by = self._process
        _started.add(self._core)
        weakref.finalize(self, _drop, self._core).atexit = False
        self._core.start()

    def stop(self, *, drain: bool = True) -> None:
        """Stops the server and returns when it has ended. With `drain` what is in flight is finished first.

        It may be called at any time, from any thread and from signal handlers, and more than once: all calls wait for
        the same end, which one without `drain` hastens. A server that is not stopped ends with its object, or with the
        interpreter.

        Raises:
            KeyboardInterrupt: After Ctrl-C; the server goes on to stop.
        """
        _check_process(self._process)
        self._core.stop(drain)
        _started.discard(self._core)

    @property
    def http_url(self) -> str:
        """Where HTTP is answered, `http://127.0.0.1:PORT`."""
        return f"http://{self._address('http')}"

    @property
    def grpc_url(self) -> str:
        """Where gRPC is answered, `127.0.0.1:PORT`."""
        return self._address("grpc")

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics."""
        return f"http://{self._address('metrics')}/metrics"

    @property
    def uds(self) -> str | None:
        """The Unix socket as a client's url, if the settings name one."""
        _check_process(self._process)
        path = self._core.addresses().get("uds")
        return f"unix://{path}" if path else None

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        parameters: Mapping[str, ParameterValue] | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> InferResult:
        """Runs one inference in this process, through the same pipeline as a request from the network.

        Ctrl-C while it waits raises `KeyboardInterrupt`; a request that still waits for its turn is then not run.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, or one array for a model with a single input. Arrays go as they are; lists
                and numbers take the type that the model expects.
            version: Version to ask; empty lets the server choose.
            outputs: Outputs to return; none means all.
            parameters: Request parameters of the protocol.
            priority: 1 is the highest, 0 the model's default.
            timeout_s: Deadline.

        Raises:
            MlserveError: Of the class that fits the refusal.
        """
        _check_process(self._process)
        # Asked each time: it costs microseconds here, and a model may be loaded anew with other inputs.
        known = metadata_of(json.loads(self._core.model_metadata(model, version))) if needs_metadata(inputs) else None
        request = prepare(InferRequest(model, inputs, version, outputs, parameters or {}, priority), known)
        name, answered, found, returned = self._core.infer(
            request.model,
            request.version,
            [(tensor.name, tensor.datatype, tensor.shape, tensor.data) for tensor in request.inputs],
            request.outputs,
            {**request.parameters, **({"priority": priority} if priority else {})},
            None if timeout_s is None else max(1, round(timeout_s * 1e6)),
        )
        arrays = {output: decode(datatype, shape, data) for output, datatype, shape, data in found}
        return InferResult(name, answered, arrays, parameters=returned)

    def models(self) -> list[ModelIndex]:
        """The models that the server knows and their states."""
        _check_process(self._process)
        return read_index(json.loads(self._core.index()))

    def load(self, model: str, config: ModelConfig | None = None) -> None:
        """Loads a model, or loads it again; returns when it is ready. The server must be in mode "explicit".

        Args:
            model: Name of the model.
            config: Instead of the repository's configuration, as a mapping or as JSON text.

        Raises:
            MlserveError: The model cannot be loaded; what was served before still is.
        """
        _check_process(self._process)
        self._core.load(model, config_text(config))

    def unload(self, model: str) -> None:
        """Unloads a model. The server must be in mode "explicit"."""
        _check_process(self._process)
        self._core.unload(model)

    def statistics(self, model: str = "") -> list[ModelStatistics]:
        """What was counted for each version of a model, or for all models."""
        _check_process(self._process)
        return read_statistics(json.loads(self._core.statistics(model)))

    def snapshot(self) -> dict[str, Any]:
        """Counters, histograms and states of this moment."""
        _check_process(self._process)
        found: dict[str, Any] = json.loads(self._core.snapshot())
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(drain=error is None)

    def _address(self, name: str) -> str:
        _check_process(self._process)
        return self._core.addresses()[name]


# Those whose threads must not run on while the interpreter and the runtime's library are taken down.
_started: set[_core.Server] = set()


def _drop(core: _core.Server) -> None:
    """Ends a server that nobody has stopped, without holding up whoever dropped it."""

    def leave() -> None:
        core.leave()
        _started.discard(core)

    threading.Thread(target=leave, name="mlserve-drop", daemon=True).start()


@atexit.register
def _leave() -> None:
    """Stops what still runs when the interpreter ends; a fork has nothing to stop."""
    for core in list(_started):
        core.leave()


def merge_settings(
    path: str | PathLike[str] | None,
    models: Mapping[str, str | PathLike[str] | Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The settings as one tree, in the words of mlserve.toml.

    Raises:
        ConfigError: A table is no mapping, or the models' path is given twice.
    """
    for name, table in settings.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{name} is {table!r}; it takes a table of settings, as mlserve.toml has it")
    merged: dict[str, Any] = {name: dict(table) for name, table in settings.items()}
    server = dict.fromkeys(_PORTS, 0) | merged.get("server", {})
    if path is not None:
        if "models_path" in server:
            raise ConfigError("the models' path is given twice: as path and as server.models_path")
        server["models_path"] = fspath(path)
    merged["server"] = server
    merged["models"] = {
        name: dict(model) if isinstance(model, Mapping) else {"path": fspath(model)} for name, model in models.items()
    }
    return merged


def _check_process(owner: int | None) -> None:
    """Refuses to go on in a fork of the process that owns a server."""
    if owner not in {None, os.getpid()}:
        raise LifecycleError(_FORK_TEXT)
