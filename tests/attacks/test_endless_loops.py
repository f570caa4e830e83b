"""Runs that do not end: they are stopped at their deadline, freeze nobody, and do not keep the process from ending."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.attacks.harness import models
from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome, probe, word_of_grpc
from tests.attacks.harness.process import cpu_s
from tests.conftest import STOP_LIMIT_S, eventually
from tests.raw_http2 import Ended, Http2Connection, framed, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

# A billion years of turns.
FOR_EVER = 2**62
SHORT_RUNS = 200
DEADLINE = "1S"
# CPU time that only such runs take.
BUSY_S = 1.0
STOP = ("--drain-notice-ms", "0", "--drain-timeout-ms", "1000")
FLAGS = ("--default-deadline-ms", "2000", "--max-deadline-ms", "4000", *STOP)
WITHOUT_DEADLINES = ("--default-deadline-ms", "0", "--max-deadline-ms", "0", *STOP)


def message(count: int, model: str = "endless") -> bytes:
    return Inference(model, [Tensor.of("count", np.array([count]), "INT64")]).message()


def teach(address: str, model: str = "endless") -> None:
    """Short runs, so that the model looks as if it could run on a loop."""
    with Http2Connection(address) as connection:
        for _ in range(SHORT_RUNS):
            stream = connection.open(grpc_headers())
            connection.send(stream, framed(message(1, model)))
            assert connection.answer(stream).grpc_status == 0


def never_ending(aim: Aim) -> Tally:
    """As many endless runs at once as there are loops and instances, and twice that."""
    teach(aim.grpc)
    tally = Tally()

    def ask(index: int) -> None:
        sent = message(FOR_EVER)
        if index % 2:
            tally.add(grpc_outcome_within(aim.grpc, sent), len(sent))
        else:
            body, fields = Inference("endless", [Tensor.of("count", np.array([FOR_EVER]), "INT64")]).body()
            named = {name.replace("-", "_"): value for name, value in fields.items()}
            tally.add(http_outcome(aim.http, "POST", "/v2/models/endless/infer", body, **named), len(body))

    callers = [threading.Thread(target=ask, args=[index]) for index in range(aim.size)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return tally


def grpc_outcome_within(address: str, sent: bytes) -> str:
    try:
        with Http2Connection(address) as connection:
            stream = connection.open(grpc_headers(grpc_timeout=DEADLINE))
            connection.send(stream, framed(sent))
            return word_of_grpc(connection.answer(stream))
    except TimeoutError:
        return "no answer"
    except (Ended, OSError):
        return "closed"


def test_runs_that_do_not_end_are_stopped_and_nobody_waits_for_them(make_field: MakeField) -> None:
    field = make_field({"endless": models.endless()}, *FLAGS)
    # They may burn the cores until they are stopped: what is bounded is for how long.
    field.attack(
        "endless loops",
        never_ending,
        size=field.scale.pick(6, 16),
        allowed={"deadline_exceeded", "queue_full"},
        cpu_slack_s=40,
    )
    assert grpc_outcome(field.server.grpc, message(1)) == "ok", "the model answers others"


def test_the_process_ends_while_a_run_does_not(make_field: MakeField) -> None:
    field = make_field({"endless": models.endless()}, *WITHOUT_DEADLINES)
    teach(field.server.grpc)
    pid = field.server.process.pid
    used = cpu_s(pid)
    connections = [Http2Connection(field.server.grpc) for _ in range(4)]
    try:
        for connection in connections:
            stream = connection.open(grpc_headers())
            connection.send(stream, framed(message(FOR_EVER)))
        eventually(lambda: cpu_s(pid) > used + BUSY_S, limit_s=30, what="runs that do not end")
        assert probe(field.server.metrics, "/livez", 5.0) is not None
        assert field.server.stop() == 0, f"not within {STOP_LIMIT_S} s"
    finally:
        for connection in connections:
            connection.socket.close()
