"""Queue policies as an operator sets them: what becomes of requests that wait behind a busy instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import slow_model
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http2 import Http2Connection, framed, grpc_call, grpc_headers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

# Long enough for all that a test does meanwhile, on a machine that is busy with other tests too.
BUSY_S = 1.2


def turns(graph_folder: Path) -> int:
    return slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", BUSY_S)


def waiting(server: ServerProcess, connection: Http2Connection, **parameters: int) -> int:
    """A request that waits in the queue; its stream."""
    depth = metric(server, "mlserve_queue_depth", model="slow")
    stream = connection.open(grpc_headers())
    connection.send(stream, framed(slow_model.inference(1, **parameters).message()))
    eventually(
        lambda: metric(server, "mlserve_queue_depth", model="slow") == depth + 1, limit_s=5, what="one more waits"
    )
    return stream


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("timeout_action=reject", "queue_timeout"),
        ("timeout_action=delay", None),
        ("allow_timeout_override=false", None),
    ],
)
def test_what_waits_too_long_is_refused_delayed_or_not_in_a_hurry(
    start_server: StartServer, graph_folder: Path, setting: str, code: str | None
) -> None:
    server = start_server(graph_folder, *slow_model.FLAGS, "--set", f"models.slow.{setting}")
    with slow_model.busy(server, turns(graph_folder)):
        assert grpc_call(server.grpc, slow_model.inference(1, timeout=1_000).message()).code == code


def test_each_level_has_its_policy(start_server: StartServer, graph_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        "[models.slow]\ninstances = 1\ninline = false\npriority_levels = 2\n"
        "[models.slow.queue_policies.2]\ncapacity = 1\ntimeout_us = 1000\ntimeout_action = 'delay'\n"
    )
    server = start_server(graph_folder, "--config", str(file))
    with slow_model.busy(server, turns(graph_folder)), Http2Connection(server.grpc) as connection:
        low = waiting(server, connection, priority=2)
        assert grpc_call(server.grpc, slow_model.inference(1, priority=2).message()).code == "queue_full"
        high = waiting(server, connection, priority=1)
        assert connection.answer(low).grpc_status == connection.answer(high).grpc_status == 0
