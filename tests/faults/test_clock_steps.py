"""The wall clock jumps by a day, either way: no deadline passes early, none is forgotten, nothing is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import shims
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask
from tests.raw_http2 import Http2Connection, framed, grpc_call, grpc_headers
from tests.repositories import answer, infer, put
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

SOUND = Inference("a", [Tensor.of("x", np.ones((1, 2), np.float32), "FP32")])
DAY_S = 86_400
STEPS_S = (0, DAY_S, -DAY_S, 400 * DAY_S, 0)
REQUESTS = 20
LIMIT_S = 15


class Stepped:
    """A server whose wall clock can be moved; no step moves its monotonic clock."""

    def __init__(self, start_server: StartServer, folder: Path, *flags: str, failpoints: str = "") -> None:
        self.models = folder / "models"
        put(self.models, "a", 1, 2)
        self._clock = folder / "clock"
        self.step(0)
        library = shims.build("clock", folder)
        env = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._clock), "FAILPOINTS": failpoints}
        self.server: ServerProcess = start_server(self.models, "--drain-notice-ms", "0", *flags, env=env)

    def step(self, seconds: int) -> None:
        """Sets the clock apart from the system's by so much."""
        partial = self._clock.with_suffix(".partial")
        partial.write_text(str(seconds))
        partial.rename(self._clock)


def test_steps_of_the_wall_clock_are_not_noticed(start_server: StartServer, tmp_path: Path) -> None:
    stepped = Stepped(start_server, tmp_path)
    server, (body, fields) = stepped.server, SOUND.body()
    for step in STEPS_S:
        stepped.step(step)
        for _ in range(REQUESTS):
            assert ask(server.http, "POST", SOUND.target, body, fields).status == 200
            assert grpc_call(server.grpc, SOUND.message(), grpc_timeout="10S").grpc_status == 0
        assert ask(server.metrics, "GET", "/readyz").status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("step", [DAY_S, -DAY_S])
def test_a_request_in_flight_outlives_a_step(start_server: StartServer, tmp_path: Path, step: int) -> None:
    held = tmp_path / "held"
    stepped = Stepped(start_server, tmp_path, failpoints=f"run block while {held}")
    server = stepped.server
    held.touch()
    with Http2Connection(server.grpc) as connection:
        stream = connection.open(grpc_headers(grpc_timeout="600S"))
        connection.send(stream, framed(SOUND.message()))
        eventually(lambda: "failpoint" in server.log.read_text(), limit_s=LIMIT_S, what="the run begins")
        stepped.step(step)
        held.unlink()
        assert connection.answer(stream).grpc_status == 0
    # One whose deadline passes is still answered so.
    held.touch()
    assert grpc_call(server.grpc, SOUND.message(), grpc_timeout="50m").grpc_status == 4
    held.unlink()
    assert server.stop() == 0


def test_a_repository_is_followed_over_steps(start_server: StartServer, tmp_path: Path) -> None:
    stepped = Stepped(start_server, tmp_path, "--model-control-mode", "poll", "--repository-poll-secs", "1")
    server = stepped.server
    for version, step in enumerate((DAY_S, -DAY_S), 2):
        stepped.step(step)
        put(stepped.models, "a", version, 2 * version)
        wanted = (2.0 * version, str(version))
        eventually(lambda wanted=wanted: answer(server, "a") == wanted, limit_s=LIMIT_S, what="the change")  # type: ignore[misc]
    assert infer(server, "a").status == 200
    assert metric(server, "mlserve_model_loads_total", model="a", outcome="ok") == 3
