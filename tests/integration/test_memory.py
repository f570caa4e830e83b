"""A server that has stopped leaves nothing behind in its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import graphs

pytestmark = pytest.mark.server

ROUNDS = 8
# Runs in a process of its own, so that the memory is the servers' alone; prints resident bytes after each stop.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from mlserve import Server

row = {"x": np.ones((1, 512), np.float32)}
for _ in range(int(sys.argv[2])):
    with Server(sys.argv[1]) as server:
        server.infer("heavy", row)
    print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096, flush=True)
"""


def heavy() -> bytes:
    """A layer of 32 MB."""
    weights = np.random.default_rng(1).standard_normal((512, 16_384), dtype=np.float32)
    return graphs.model(
        [graphs.node("MatMul", ["x", "w"], ["y"])],
        [graphs.value("x", "FP32", ["batch", 512])],
        [graphs.value("y", "FP32", ["batch", 16_384])],
        [graphs.constant("w", weights)],
    )


@pytest.mark.timeout(120)
def test_stopped_servers_give_their_weights_back(tmp_path: Path) -> None:
    graphs.write(tmp_path, "heavy", heavy())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(ROUNDS)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=110).stdout
    resident = [int(line) for line in printed.split()]
    assert len(resident) == ROUNDS
    # Single figures swing by some MB with the allocator's arenas; weights that stayed would add 32 MB a round.
    assert min(resident[-3:]) <= 1.1 * max(resident[:3]), resident
