"""What must hold whatever a client sends: the server lives, answers others rightly, says nothing of panics, keeps no memory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np

from tests.conftest import eventually
from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import ServerProcess

# A process that has worked keeps some pages; a leak per request soon is more than this.
MEMORY_SLACK = 0.15
MEMORY_SLACK_BYTES = 24 << 20
MEMORY_LIMIT_S = 10.0
NEIGHBOUR = Inference("identity_FP32", [Tensor.of("x", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32")])
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def metric(server: ServerProcess, name: str, **labels: str) -> float:
    """The sum of all samples of a metric that have these labels."""
    found = ask(server.metrics, "GET", "/metrics")
    assert found.status == 200
    total = 0.0
    for line in found.body.decode().splitlines():
        sample = None if line.startswith("#") else _SAMPLE.match(line)
        if sample and sample["name"] == name:
            has: Mapping[str, str] = dict(_LABEL.findall(sample["labels"] or ""))
            if all(has.get(label) == value for label, value in labels.items()):
                total += float(sample["value"])
    return total


def resident_bytes(server: ServerProcess) -> float:
    """Memory that the server's process holds."""
    return metric(server, "process_resident_memory_bytes")


class Oracle:
    """Notes how a server is, and checks later that it still is so."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.check_neighbour()
        self.resident = resident_bytes(server)

    def check(self) -> None:
        """Fails unless the process lives, answers rightly, has not panicked, and has given memory back."""
        self.check_alive()
        self.check_neighbour()
        limit = self.resident * (1 + MEMORY_SLACK) + MEMORY_SLACK_BYTES
        eventually(
            lambda: resident_bytes(self.server) <= limit,
            limit_s=MEMORY_LIMIT_S,
            what=f"memory back below {limit / 1e6:.0f} MB",
        )

    def check_alive(self) -> None:
        """Fails if the process has ended or a thread has panicked."""
        assert self.server.process.poll() is None, f"the server ended: {_end_of(self.server.log)}"
        log = self.server.log.read_text(errors="replace")
        assert "panicked" not in log, _end_of(self.server.log)

    def check_neighbour(self) -> None:
        """Fails unless a right request gets its right answer, over both transports."""
        body, fields = NEIGHBOUR.body()
        over_http = ask(self.server.http, "POST", NEIGHBOUR.target, body, fields)
        assert over_http.status == 200, over_http
        assert json.loads(over_http.body)["outputs"][0]["data"] == [0, 1, 2, 3, 4, 5]
        over_grpc = grpc_call(self.server.grpc, NEIGHBOUR.message())
        assert over_grpc.grpc_status == 0, over_grpc
        assert over_grpc.messages()[0].endswith(NEIGHBOUR.inputs[0].data)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2_000:]
