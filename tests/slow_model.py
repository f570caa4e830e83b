"""Keeps a server's only instance of the model `slow` busy for about as long as a test asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http2 import Http2Connection, framed, grpc_headers
from tests.reference import Reference
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

# One run at a time, never on an event loop, where it would hold up what the test asks next.
FLAGS = ("--set", "models.slow.instances=1", "--set", "models.slow.inline=false")
_TRIAL_TURNS = 20_000
START_LIMIT_S = 10.0


@cache
def turns_for(path: Path, seconds: float) -> int:
    """Turns of the loop that take about so long here and now."""
    reference = Reference(path)
    begun = time.monotonic()
    reference.run({"turns": np.array([_TRIAL_TURNS])})
    return int(_TRIAL_TURNS * seconds / (time.monotonic() - begun))


def inference(turns: int, **parameters: int) -> Inference:
    """A request that takes so many turns."""
    return Inference("slow", [Tensor.of("turns", np.array([turns]), "INT64")], parameters=parameters)


@contextmanager
def busy(server: ServerProcess, turns: int, *, waiting: int = 0) -> Iterator[None]:
    """Within, the instance runs and `waiting` more requests are queued behind; at the end all have been answered."""
    with Http2Connection(server.grpc) as connection:
        runs = metric(server, "mlserve_runs_total", model="slow")
        streams = []
        for count in [turns, *[1] * waiting]:
            streams.append(connection.open(grpc_headers()))
            connection.send(streams[-1], framed(inference(count).message()))
            eventually(
                lambda: metric(server, "mlserve_runs_total", model="slow") == runs + 1,
                limit_s=START_LIMIT_S,
                what="the slow run begins",
            )
        eventually(
            lambda: metric(server, "mlserve_queue_depth", model="slow") == waiting,
            limit_s=START_LIMIT_S,
            what=f"{waiting} requests wait",
        )
        yield
        for stream in streams:
            assert connection.answer(stream).grpc_status == 0
