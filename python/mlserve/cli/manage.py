"""What `mlserve models`, `load`, `unload` and `stats` do: ask a server, and show what it says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from mlserve.cli.tables import models_table, rates_table, statistics_table
from mlserve.client.sync_client import Client
from mlserve.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from mlserve.statistics import ModelStatistics
    from mlserve.types import Protocol

_TEXT_FORM = ".pbtxt"


def connect(url: str, protocol: str | None, timeout_s: float | None) -> Client:
    """A client for one command."""
    return Client(url, protocol=cast("Protocol | None", protocol), timeout_s=timeout_s)


def models_text(client: Client, *, ready: bool, as_json: bool) -> str:
    """The models that the server knows, as a table or as JSON."""
    found = client.models(ready=ready)
    return _json(found) if as_json else models_table(found)


def read_config(file: Path) -> dict[str, Any]:
    """A model's configuration from JSON, or from protobuf's text form by the name's ending.

    Raises:
        InvalidArgumentError: It is neither.
    """
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    if file.suffix == _TEXT_FORM:
        return _from_text_form(file.name, text)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{file.name} is JSON, but no object")
    return document


def _from_text_form(name: str, text: str) -> dict[str, Any]:
    from google.protobuf import text_format  # noqa: PLC0415 -- protobuf is needed by this form only
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 -- the same

    from mlserve.client._proto.model_config_pb2 import ModelConfig  # noqa: PLC0415 -- the same

    try:
        message = text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise InvalidArgumentError(f"{name} is no model configuration: {error}") from error
    return MessageToDict(message, preserving_proto_field_name=True)


def statistics_text(client: Client, model: str, *, as_json: bool) -> str:
    """What the server has counted, as a table or as JSON."""
    found = client.statistics(model)
    return _json(found) if as_json else statistics_table(found)


def watch(
    client: Client,
    model: str,
    every_s: float,
    *,
    as_json: bool,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Every so many seconds what happened since the last time: rates as a table, or all counts as a line of JSON.

    Without end: whoever reads stops it.
    """
    earlier: list[ModelStatistics] = client.statistics(model)
    then = clock()
    while True:
        sleep(every_s)
        found, now = client.statistics(model), clock()
        yield _json(found, indent=None) if as_json else rates_table(found, earlier, now - then)
        earlier, then = found, now


def _json(found: list[Any], indent: int | None = 2) -> str:
    return json.dumps([asdict(item) for item in found], indent=indent)
