"""A server that starts: live at once, ready only after every model has run its warm-up, and then it says where it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import graphs, slow_model
from tests.conftest import START_LIMIT_S, eventually
from tests.raw_http import ask

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

# How long one run of the slow starter takes; it runs several times before it is ready.
RUN_S = 0.4
# The state of a listening socket in /proc/net/tcp.
LISTENS = "0A"


@dataclass(frozen=True)
class Starting:
    """A server process that may not be ready yet."""

    process: subprocess.Popen[bytes]
    uds: str
    ready_file: Path

    def metrics(self) -> str:
        """The address that answers metrics and probes; found among the sockets that the process listens on."""
        descriptors = Path(f"/proc/{self.process.pid}/fd")
        links = [str(entry.readlink()) for entry in descriptors.iterdir() if entry.is_symlink()]
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ports = [int(row[1].split(":")[1], 16) for row in rows if row[3] == LISTENS and row[9] in sockets]
        (found,) = [port for port in ports if ask(f"127.0.0.1:{port}", "GET", "/metrics").status == 200]
        return f"127.0.0.1:{found}"


@contextmanager
def starting(folder: Path, *flags: str) -> Iterator[Starting]:
    """A server of the models in `folder`; yields as soon as its Unix socket answers."""
    sockets = Path(tempfile.mkdtemp(prefix="mlserve-"))
    uds, ready_file = sockets / "s", sockets / "ready.json"
    ready_file.write_text("what an earlier server has left")
    ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "mlserve", "serve", str(folder), *ports, "--uds", str(uds)]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready_file), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(uds.exists, limit_s=START_LIMIT_S, what="the Unix socket")
        yield Starting(process, f"unix:{uds}", ready_file)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(sockets)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick model, and one that takes a while to warm up and comes later in the alphabet."""
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32", "slow"))
    turns = slow_model.turns_for(folder / "slow" / "1" / "model.onnx", RUN_S)
    graphs.write(folder, "starter", graphs.slow_starter(turns))
    return folder


@contextmanager
def health(address: str) -> Iterator[Callable[[str], int]]:
    """Asks `grpc.health.v1` for the state of a service."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        yield lambda service: stub.Check(health_pb2.HealthCheckRequest(service=service)).status


def test_a_starting_server_is_live_and_not_ready(folder: Path) -> None:
    with starting(folder) as server, health(server.uds) as state:
        assert ask(server.uds, "GET", "/v2/health/live").status == 200
        assert ask(server.uds, "GET", "/v2/health/ready").status == 400
        assert state("") == health_pb2.HealthCheckResponse.NOT_SERVING
        metrics = server.metrics()
        probes = {probe: ask(metrics, "GET", probe).status for probe in ("/livez", "/readyz", "/startupz")}
        assert probes == {"/livez": 200, "/readyz": 400, "/startupz": 400}
        assert not server.ready_file.exists()


def test_a_model_is_ready_as_soon_as_it_is_and_the_server_when_all_are(folder: Path) -> None:
    def is_ready(target: str) -> bool:
        return ask(server.uds, "GET", target).status == 200

    with starting(folder) as server, health(server.uds) as state:
        eventually(lambda: is_ready("/v2/models/identity_FP32/ready"), limit_s=START_LIMIT_S, what="the quick model")
        assert not is_ready("/v2/models/starter/ready")
        assert state("mlserve.model/identity_FP32") == health_pb2.HealthCheckResponse.SERVING
        assert state("mlserve.model/starter") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not is_ready("/v2/health/ready")
        eventually(lambda: is_ready("/v2/health/ready"), limit_s=START_LIMIT_S, what="the server")
        assert is_ready("/v2/models/starter/ready")
        assert state("") == state("mlserve.model/starter") == health_pb2.HealthCheckResponse.SERVING


def test_a_model_that_is_not_warm_refuses_for_now(folder: Path) -> None:
    with starting(folder) as server:
        answer = ask(server.uds, "POST", "/v2/models/starter/infer", b'{"inputs":[]}')
    assert (answer.status, answer.headers.get("retry-after")) == (503, "1"), answer
    assert "is not at ready state" in answer.text


def test_ready_means_warm(folder: Path) -> None:
    """The first request takes one run, not one and a warm-up."""
    with starting(folder) as server:
        eventually(server.ready_file.exists, limit_s=START_LIMIT_S, what="the ready file")
        metrics = server.metrics()
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'
        assert ask(server.uds, "POST", "/v2/models/starter/infer", body).status == 200
        text = ask(metrics, "GET", "/metrics").body.decode()
    (total,) = [
        line for line in text.splitlines() if line.startswith('mlserve_compute_duration_seconds_sum{model="starter"')
    ]
    assert 0 < float(total.rpartition(" ")[2]) < 10 * RUN_S


def test_the_ready_file_tells_every_address(folder: Path) -> None:
    with starting(folder) as server:
        eventually(server.ready_file.exists, limit_s=START_LIMIT_S, what="the ready file")
        found = json.loads(server.ready_file.read_text())
        assert found["pid"] == server.process.pid
        assert f"unix:{found['uds']}" == server.uds
        assert ask(found["metrics"], "GET", "/readyz").status == 200
        for address in (found["http"], found["grpc"], server.uds):
            assert ask(address, "GET", "/v2/health/ready").status == 200


def test_a_stop_while_models_load_ends_the_start(folder: Path) -> None:
    with starting(folder, "--drain-notice-ms", "0") as server:
        server.process.terminate()
        assert server.process.wait(START_LIMIT_S) == 0
        assert not server.ready_file.exists()
