"""The calls about the server's trace and log settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlserve.client.http_codec import model_path
from mlserve.client.operation import Operation
from mlserve.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mlserve.types import LogSettings, TraceChanges, TraceSettings

# The one trace setting with several values; over HTTP it is a list, the others are texts.
_TRACE_LEVEL = "trace_level"


def trace_settings(model: str, changes: TraceChanges | None) -> Operation[TraceSettings]:
    """Reads trace settings, after changing those that are given; `None` clears one."""
    listed = {name: _values(value) for name, value in (changes or {}).items()}
    return Operation(
        "TraceSetting",
        {"model_name": model, "settings": {name: {"value": values} for name, values in listed.items()}},
        model_path(model, "", "trace/setting") if model else "/v2/trace/setting",
        lambda document: {name: _told(name, item["value"]) for name, item in document["settings"].items()},
        body={name: _told(name, values) if values else None for name, values in listed.items()} or None,
        from_http=lambda document: {"settings": {name: {"value": _values(item)} for name, item in document.items()}},
    )


def log_settings(changes: LogSettings | None) -> Operation[LogSettings]:
    """Reads log settings, after changing those that are given."""
    return Operation(
        "LogSettings",
        {"settings": {name: {_kind(name, value): value} for name, value in (changes or {}).items()}},
        "/v2/logging",
        lambda document: {name: next(iter(item.values())) for name, item in document["settings"].items()},
        body=dict(changes) if changes else None,
        from_http=lambda document: {"settings": {name: {"": value} for name, value in document.items()}},
    )


def _values(value: str | int | Sequence[str] | None) -> list[str]:
    """A trace setting as the list that gRPC sends: an empty one clears it."""
    if value is None:
        return []
    return [str(value)] if isinstance(value, str | int) else list(value)


def _told(name: str, values: list[str]) -> str | list[str]:
    """A trace setting as HTTP and the caller have it."""
    if name == _TRACE_LEVEL:
        return values
    return values[0] if values else ""


def _kind(name: str, value: Any) -> str:
    """The member of gRPC's message that carries a log setting."""
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int):
        return "uint32_param"
    if isinstance(value, str):
        return "string_param"
    raise InvalidArgumentError(f"log setting '{name}' is of type {type(value).__name__}; use bool, int or str")
