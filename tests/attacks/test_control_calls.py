"""Calls that control the server, made by those who only want it busy: orders, uploads, traces, shared memory."""

from __future__ import annotations

import base64
import os
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from h2.exceptions import StreamClosedError

from tests import graphs
from tests.attacks.harness.aim import Aim, Tally, as_json, grpc_outcome, http_outcome
from tests.oracle import metric
from tests.raw_http import connected, head
from tests.raw_http2 import Http2Connection, framed, grpc_headers
from tests.repositories import load, unload
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

EXPLICIT = ("--model-control-mode", "explicit", "--load-models", "identity_FP32")
# About a quarter of a second to load.
TURNS = 100_000
MODELS = 12
SETTLE = 20
CANCEL = 8
SHARED_BYTES = (1 << 31) - 1


def abandoned_orders(aim: Aim) -> Tally:
    """Orders to load and unload, whose callers leave when all of them have been given: they hang up, or cancel."""
    tally = Tally()
    with ExitStack() as stack:
        calls = stack.enter_context(Http2Connection(aim.grpc))
        streams = []
        for index in range(aim.size):
            order, name = ("load", "unload")[index // MODELS % 2], f"slow-{index % MODELS}"
            if index % 3 == 0:
                data = head("POST", f"/v2/repository/models/{name}/{order}", {"content-length": "0"})
                stack.enter_context(connected(aim.http)).sendall(data)
            else:
                data = framed(b"\x12" + bytes([len(name)]) + name.encode())
                rpc = grpc_headers(f"/inference.GRPCInferenceService/RepositoryModel{order.title()}")
                connection = stack.enter_context(Http2Connection(aim.grpc)) if index % 3 == 1 else calls
                stream = connection.open(rpc)
                connection.send(stream, data)
                streams += [stream] if connection is calls else []
            tally.add("sent", len(data))
        # The loops have read them all when this one is answered; the first order still runs.
        for _ in range(SETTLE):
            assert http_outcome(aim.http, "GET", "/v2/health/live") == "ok"
        for stream in streams:
            # Those that were refused, because too many wait, have ended.
            with suppress(StreamClosedError):
                calls.h2.reset_stream(stream, CANCEL)
        calls.flush()
    tally.add("honest " + http_outcome(aim.http, "POST", "/v2/repository/models/honest/load"), 0)
    return tally


def test_orders_of_callers_who_left_are_not_carried_out(make_field: MakeField) -> None:
    slow = graphs.slow_starter(TURNS)
    models = {f"slow-{index}": slow for index in range(MODELS)}
    field = make_field({**models, "honest": graphs.times(2)}, *EXPLICIT)
    orders = field.scale.pick(48, 300)
    # What is carried out all the same costs what loads cost.
    field.attack("abandoned orders", abandoned_orders, size=orders, allowed={"sent", "honest ok"}, cpu_slack_s=30)
    loads = metric(field.server, "mlserve_model_loads_total") - 1
    assert loads <= 1 + 3 * field.scale.windows, f"{loads} loads for one honest order"


def used_bytes(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def test_uploads_go_with_their_models(make_field: MakeField, temporary: Path) -> None:
    field = make_field(None, *EXPLICIT)
    content = base64.b64encode(graphs.times(3, 1 << 20)).decode()
    for index in range(5):
        found = load(field.server, f"sent-{index}", config="{}", **{"file:1/model.onnx": content})
        assert found.status == 200, found
        assert unload(field.server, f"sent-{index}").status == 200
    field.check_probes()
    assert used_bytes(temporary) < 1 << 20, f"{used_bytes(temporary)} bytes of unloaded models stay"


def many_trace_files(aim: Aim) -> Tally:
    tally = Tally()
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "1"}
    tally.add(http_outcome(aim.http, "POST", "/v2/trace/setting", as_json(settings)), 80)
    message = Inference("identity_FP32", [Tensor("x", "FP32", (1, 1), bytes(4))]).message()
    for _ in range(aim.size):
        tally.add(grpc_outcome(aim.grpc, message), len(message))
    return tally


def test_a_setting_of_traces_does_not_make_files_without_end(make_field: MakeField, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    field = make_field(None, "--trace-file", str(folder / "trace.json"))
    size = field.scale.pick(300, 3_000)
    field.attack("trace files", many_trace_files, size=size, allowed={"ok", "invalid_argument"}, cpu_slack_s=10)
    count = sum(1 for _ in folder.iterdir())
    assert count <= 101, f"{count} files for {size} requests"


def shared_reads(aim: Aim) -> Tally:
    """Small requests for tensors of two gigabytes in shared memory."""
    path = Path("/dev/shm") / f"mlserve-attack-{uuid.uuid4().hex}"  # noqa: S108 -- where shm_open has its files
    tally = Tally()
    with path.open("wb") as file:
        # A hole: it takes no memory until somebody copies it.
        os.truncate(file.fileno(), SHARED_BYTES)
    try:
        region = {"key": f"/{path.name}", "offset": 0, "byte_size": SHARED_BYTES}
        target = "/v2/systemsharedmemory/region/big"
        # A window before this one has registered it, too.
        http_outcome(aim.http, "POST", target + "/unregister", b"")
        tally.add("register " + http_outcome(aim.http, "POST", target + "/register", as_json(region)), 100)
        place = {"shared_memory_region": "big", "shared_memory_offset": 0, "shared_memory_byte_size": SHARED_BYTES}
        tensor = Tensor("x", "UINT8", (1, SHARED_BYTES), parameters=place)
        for _ in range(aim.size):
            message = Inference("identity_UINT8", [tensor]).message()
            tally.add(grpc_outcome(aim.grpc, message), len(message))
    finally:
        path.unlink()
    return tally


def test_shared_memory_is_bounded_as_bodies_are(make_field: MakeField) -> None:
    field = make_field({"identity_UINT8": graphs.identity("UINT8")}, "--allow-client-shm")
    refused = {"too_large", "out_of_budget", "register ok", "register too_large", "not_found", "invalid_argument"}
    field.attack("reads of shared memory", shared_reads, size=field.scale.pick(3, 20), allowed=refused)


def loads_in_mode_none(aim: Aim) -> Tally:
    """A load with a large file, where nobody may load."""
    tally = Tally()
    content = bytes(aim.size)
    body = as_json({"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(content).decode()}})
    for _ in range(3):
        tally.add(http_outcome(aim.http, "POST", "/v2/repository/models/x/load", body), len(body))
    name = b"file:1/model.onnx"
    value = b"\x22" + _varint(len(content)) + content
    entry = b"\x0a" + bytes([len(name)]) + name + b"\x12" + _varint(len(value)) + value
    message = b"\x12\x01x\x1a" + _varint(len(entry)) + entry
    for _ in range(3):
        rpc = "/inference.GRPCInferenceService/RepositoryModelLoad"
        tally.add(grpc_outcome(aim.grpc, message, rpc), len(message))
    return tally


def _varint(number: int) -> bytes:
    found = b""
    while number >= 128:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def test_where_nobody_may_load_a_load_costs_nothing(make_field: MakeField) -> None:
    field = make_field()
    size = field.scale.pick(8 << 20, 40 << 20)
    # The answer may come before the body has been read, and the connection may be gone then.
    allowed = {"model_control", "too_large", "closed"}
    figures = field.attack("loads in mode none", loads_in_mode_none, size=size, allowed=allowed, cpu_slack_s=0.5)
    assert figures.peak_bytes < 3 * size + (16 << 20)


def test_values_in_shared_memory_of_nobody_are_refused(make_field: MakeField) -> None:
    field = make_field()
    tensor = Tensor("x", "FP32", (1, 1), parameters={"shared_memory_region": "x", "shared_memory_byte_size": 4})
    assert grpc_outcome(field.server.grpc, Inference("identity_FP32", [tensor]).message()) != "ok"
    sound = np.ones((1, 1), np.float32)
    assert (
        grpc_outcome(field.server.grpc, Inference("identity_FP32", [Tensor.of("x", sound, "FP32")]).message()) == "ok"
    )
