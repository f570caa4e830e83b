"""The wall clock jumps by a day, either way: no deadline passes early, none is forgotten, nothing is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

SOUND = Inference("identity_FP32", [Tensor.of("x", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32")])
# Debian's package `libfaketime` puts it there; a copy elsewhere can be named.
FOUND = [os.environ.get("LIBFAKETIME", ""), *map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))]
LIBRARY = next((path for path in FOUND if path), "")
STEPS = ("+0", "+1d", "-1d", "+400d", "+0")
REQUESTS = 20


@pytest.mark.skipif(not LIBRARY, reason="libfaketime is not installed")
def test_steps_of_the_wall_clock_are_not_noticed(start_server: StartServer, graph_folder: Path, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text(STEPS[0])
    # The monotonic clock is the system's own: no step moves it.
    fake = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    fake["FAKETIME_DONT_FAKE_MONOTONIC"] = fake["DONT_FAKE_MONOTONIC"] = "1"
    server = start_server(graph_folder / "identity_FP32", "--drain-notice-ms", "0", env=fake)
    body, fields = SOUND.body()
    for step in STEPS:
        clock.write_text(step)
        for _ in range(REQUESTS):
            assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
            assert grpc_call(server.grpc, SOUND.message(), grpc_timeout="10S").grpc_status == 0
        assert ask(server.metrics, "GET", "/readyz").status == 200
    assert server.stop() == 0
