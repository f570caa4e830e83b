"""Large bodies on routes whose honest bodies are small: refused before they are parsed, over both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

ROUTES = [
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/models/identity_FP32/trace/setting",
    "/v2/repository/index",
    "/v2/repository/models/identity_FP32/load",
    "/v2/repository/models/identity_FP32/unload",
    "/v2/systemsharedmemory/region/a/register",
    "/v2/systemsharedmemory/unregister",
]
RPCS = [
    "LogSettings",
    "TraceSetting",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "ModelStatistics",
    "ModelMetadata",
    "ModelConfig",
    "SystemSharedMemoryRegister",
    "ServerMetadata",
]
# A route without a body answers before there is one.
ALLOWED = {
    "ok",
    "too_large",
    "invalid_argument",
    "not_offered",
    "model_control",
    "not_found",
    "unknown_route",
    "closed",
}
BODIES = [
    lambda size: b'{"a":[' + b"0," * (size // 2) + b"0]}",
    lambda size: b'{"a":' + b'["",' * 30 + b'"",' * (size // 3) + b'""' + b"]" * 30 + b"}",
    lambda size: b'{"parameters":{' + b'"a":{},' * (size // 7) + b'"b":1}}',
]


def bodies(aim: Aim) -> Tally:
    tally = Tally()
    for index, route in enumerate(ROUTES):
        body = BODIES[index % len(BODIES)](aim.size)
        tally.add(http_outcome(aim.http, "POST", route, body), len(body))
    return tally


def messages(aim: Aim) -> Tally:
    """Map entries without key or value, as many as fit."""
    tally = Tally()
    for rpc in RPCS:
        for tag in (b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x22\x00"):
            message = tag * (aim.size // 8)
            outcome = grpc_outcome(aim.grpc, message, f"/inference.GRPCInferenceService/{rpc}")
            tally.add(outcome, len(message))
    return tally


def test_large_bodies_of_the_extensions_are_not_parsed(make_field: MakeField) -> None:
    field = make_field()
    size = field.scale.pick(4 << 20, 16 << 20)
    figures = field.attack("extension JSON", bodies, size=size, allowed=ALLOWED, cpu_slack_s=0.5)
    assert figures.peak_bytes < size, "nothing of them is kept"
    assert figures.tally.outcomes["ok"] <= field.scale.windows, "all but one of the routes read their body"


def test_large_messages_of_the_extensions_are_not_parsed(make_field: MakeField) -> None:
    field = make_field()
    field.attack("extension messages", messages, size=field.scale.pick(8 << 20, 32 << 20), cpu_slack_s=0.5)
