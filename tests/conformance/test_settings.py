"""Trace and log settings, as foreign clients read and change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server

Managed = Callable[..., Any]
BAD_REQUEST = {"400", "StatusCode.INVALID_ARGUMENT"}
REFUSED = {*BAD_REQUEST, "501", "StatusCode.UNIMPLEMENTED"}
TRACE_SETTINGS = {"trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file", "trace_mode"}
LOG_SETTINGS = {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}


def trace_of(found: dict[str, Any]) -> dict[str, list[str]]:
    """Trace settings as lists; gRPC has them one level down, and HTTP has texts."""
    if "settings" in found:
        return {name: list(item.get("value", [])) for name, item in found["settings"].items()}
    return {name: item if isinstance(item, list) else [item] for name, item in found.items()}


def log_of(found: dict[str, Any]) -> dict[str, Any]:
    """Log settings by name; gRPC has them one level down, each under its kind."""
    if "settings" not in found:
        return found
    return {name: next(iter(item.values())) for name, item in found["settings"].items()}


@pytest.fixture
def tracing(managed: Managed) -> Iterator[Managed]:
    """Puts the trace settings back."""
    yield managed
    managed("update_trace_settings", settings={"trace_level": ["OFF"], "trace_rate": None, "trace_count": None})
    managed("update_trace_settings", "mlp", {"trace_level": None, "trace_rate": None, "trace_count": None})


@pytest.fixture
def logging(managed: Managed) -> Iterator[Managed]:
    """Puts the log settings back."""
    yield managed
    managed("update_log_settings", {"log_info": True, "log_verbose_level": 0, "log_format": "default"})


def test_trace_settings_are_told(managed: Managed) -> None:
    found = trace_of(managed("get_trace_settings"))
    assert set(found) >= TRACE_SETTINGS
    assert (found["trace_level"], found["trace_mode"]) == (["OFF"], ["triton"])


def test_trace_settings_are_changed_and_cleared(tracing: Managed) -> None:
    begun = trace_of(tracing("get_trace_settings"))
    changes = {"trace_level": ["TIMESTAMPS"], "trace_rate": "7"}
    changed = trace_of(tracing("update_trace_settings", settings=changes))
    assert (changed["trace_level"], changed["trace_rate"]) == (["TIMESTAMPS"], ["7"])
    assert trace_of(tracing("get_trace_settings")) == changed
    cleared = trace_of(tracing("update_trace_settings", settings={"trace_level": None, "trace_rate": None}))
    assert cleared["trace_rate"] == begun["trace_rate"]


def test_a_model_has_trace_settings_of_its_own(tracing: Managed) -> None:
    changed = trace_of(tracing("update_trace_settings", "mlp", {"trace_rate": "9"}))
    assert changed["trace_rate"] == ["9"]
    assert trace_of(tracing("get_trace_settings", "mlp"))["trace_rate"] == ["9"]
    assert trace_of(tracing("get_trace_settings"))["trace_rate"] != ["9"]


@pytest.mark.parametrize("changes", [{"trace_rate": "often"}, {"trace_level": ["EVERYTHING"]}], ids=str)
def test_wrong_trace_settings_are_refused(tracing: Managed, changes: dict[str, Any]) -> None:
    before = trace_of(tracing("get_trace_settings"))
    with pytest.raises(InferenceServerException) as caught:
        tracing("update_trace_settings", settings=changes)
    assert caught.value.status() in BAD_REQUEST
    assert trace_of(tracing("get_trace_settings")) == before


def test_trace_settings_of_an_unknown_model_are_refused(managed: Managed) -> None:
    with pytest.raises(InferenceServerException, match="unknown model : nobody"):
        managed("get_trace_settings", "nobody")


def test_log_settings_are_told(managed: Managed) -> None:
    found = log_of(managed("get_log_settings"))
    assert set(found) >= LOG_SETTINGS
    assert (found["log_error"], found["log_verbose_level"]) == (True, 0)


def test_log_settings_are_changed(logging: Managed) -> None:
    changes = {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
    changed = log_of(logging("update_log_settings", changes))
    assert {name: changed[name] for name in changes} == changes
    assert log_of(logging("get_log_settings")) == changed


@pytest.mark.parametrize(
    "changes",
    [{"log_format": "sideways"}, {"log_file": "other.log"}],
    ids=str,
)
def test_wrong_log_settings_are_refused(logging: Managed, changes: dict[str, Any]) -> None:
    before = log_of(logging("get_log_settings"))
    with pytest.raises(InferenceServerException) as caught:
        logging("update_log_settings", changes)
    assert caught.value.status() in REFUSED
    assert log_of(logging("get_log_settings")) == before
