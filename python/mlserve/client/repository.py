"""The calls about models: configuration, statistics, and the repository's index, load and unload."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlserve.client.http_codec import model_path
from mlserve.client.operation import Operation, nothing
from mlserve.errors import InvalidArgumentError
from mlserve.statistics import read_statistics
from mlserve.types import ModelIndex

if TYPE_CHECKING:
    from mlserve.statistics import ModelStatistics
    from mlserve.types import ModelConfig


def model_config(model: str, version: str) -> Operation[dict[str, Any]]:
    """The configuration that a model is served with."""
    return Operation(
        "ModelConfig",
        {"name": model, "version": version},
        model_path(model, version, "config"),
        lambda document: dict(document["config"]),
        from_http=lambda document: {"config": document},
    )


def statistics(model: str, version: str) -> Operation[list[ModelStatistics]]:
    """What was counted for one model, or for all."""
    if version and not model:
        raise InvalidArgumentError(f"version '{version}' is given without a model")
    path = model_path(model, version, "stats") if model else "/v2/models/stats"
    return Operation("ModelStatistics", {"name": model, "version": version}, path, read_statistics)


def models(*, ready: bool) -> Operation[list[ModelIndex]]:
    """The repository's index."""
    return Operation(
        "RepositoryIndex",
        {"ready": ready},
        "/v2/repository/index",
        lambda document: read_index(document["models"]),
        body={"ready": ready},
        from_http=lambda document: {"models": document},
    )


def read_index(document: list[Mapping[str, Any]]) -> list[ModelIndex]:
    """The index's entries; what is empty may be missing."""
    return [
        ModelIndex(item["name"], *(item.get(name, "") for name in ("version", "state", "reason"))) for item in document
    ]


def load_model(model: str, config: ModelConfig | None, files: Mapping[str, bytes] | None) -> Operation[None]:
    """Loads a model, or loads it again."""
    message: dict[str, Any] = {}
    body: dict[str, str] = {}
    text = config_text(config)
    if text is not None:
        message["config"] = {"string_param": text}
        body["config"] = text
    for path, data in (files or {}).items():
        name = "file:" + path.removeprefix("file:")
        message[name] = {"bytes_param": bytes(data)}
        body[name] = base64.b64encode(data).decode()
    return Operation(
        "RepositoryModelLoad",
        {"model_name": model, "parameters": message},
        _path(model, "load"),
        nothing,
        body={"parameters": body} if body else {},
        is_long=True,
    )


def config_text(config: ModelConfig | None) -> str | None:
    """A configuration as the JSON text that travels.

    Raises:
        InvalidArgumentError: It cannot be written as JSON.
    """
    if config is None or isinstance(config, str):
        return config
    try:
        return json.dumps(dict(config))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"config cannot be written as JSON: {error}") from error


def unload_model(model: str, *, unload_dependents: bool) -> Operation[None]:
    """Unloads a model."""
    given = {"unload_dependents": unload_dependents} if unload_dependents else {}
    return Operation(
        "RepositoryModelUnload",
        {"model_name": model, "parameters": {name: {"bool_param": value} for name, value in given.items()}},
        _path(model, "unload"),
        nothing,
        body={"parameters": given} if given else {},
        is_long=True,
    )


def _path(model: str, tail: str) -> str:
    if not model:
        raise InvalidArgumentError("the model's name is empty")
    return f"/v2/repository/models/{quote(model, safe='')}/{tail}"
