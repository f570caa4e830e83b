"""What the server writes to may stop, break or be full: it serves on, says so where it can, and ends when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import graphs
from tests.attacks.harness.aim import grpc_outcome, http_outcome, probe
from tests.attacks.harness.good import GoodClient
from tests.attacks.harness.start import broken_pipe, full_disk, full_pipe, served
from tests.conftest import eventually
from tests.disks import mounted
from tests.oracle import metric
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

OUTPUTS: list[Callable[[], AbstractContextManager[int]]] = [full_pipe, broken_pipe, full_disk]
FLAGS = ("--drain-notice-ms", "0", "--drain-timeout-ms", "2000", "--log-level", "debug", "--log-format", "json")
REQUESTS = 400
# Refused, so that it leaves lines of every kind.
BROKEN = b"\xff\xff\xff"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))


def check_served(server: ServerProcess) -> None:
    """Hundreds of requests, good ones and such as leave a line of the log; then a stop."""
    good = GoodClient(server.http, server.grpc)
    try:
        for _ in range(4):
            asked = good.ask_while(lambda: False, REQUESTS // 8)
            assert not asked.failures
            for _ in range(REQUESTS // 8):
                assert grpc_outcome(server.grpc, BROKEN) == "invalid_argument"
                assert http_outcome(server.http, "POST", "/v2/models/none/infer", b"{") in {
                    "not_found",
                    "invalid_argument",
                }
            assert probe(server.metrics, "/livez", 5.0) == 200
            assert probe(server.metrics, "/readyz", 5.0) == 200
    finally:
        good.close()
    assert server.stop() == 0


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_failing_standard_error_stops_nobody(
    tmp_path: Path, models: Path, output: Callable[[], AbstractContextManager[int]]
) -> None:
    with output() as descriptor, served(tmp_path, models, *FLAGS, stderr=descriptor) as server:
        check_served(server)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_failing_standard_output_stops_nobody(
    tmp_path: Path, models: Path, output: Callable[[], AbstractContextManager[int]]
) -> None:
    with output() as descriptor, served(tmp_path, models, *FLAGS, stdout=descriptor) as server:
        check_served(server)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_failing_access_log_stops_nobody_and_counts_what_is_lost(
    tmp_path: Path, models: Path, output: Callable[[], AbstractContextManager[int]]
) -> None:
    flags = (*FLAGS, "--access-log")
    with output() as descriptor, served(tmp_path, models, *flags, stdout=descriptor) as server:
        check_served(server)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with mounted(tmp_path / "disk", "size=1m") as folder:
        yield folder


def trace_everything(server: ServerProcess) -> None:
    body = b'{"trace_level":["TIMESTAMPS"],"trace_rate":"1"}'
    assert http_outcome(server.http, "POST", "/v2/trace/setting", body) == "ok"


def ask_often(server: ServerProcess, times: int) -> None:
    message = Inference("identity_FP32", [Tensor("x", "FP32", (1, 1), bytes(4))]).message()
    for _ in range(times):
        assert grpc_outcome(server.grpc, message) == "ok"


def test_traces_on_a_full_disk_are_counted_and_go_on_when_there_is_room(
    tmp_path: Path, models: Path, small_disk: Path
) -> None:
    trace, filling = small_disk / "trace.json", small_disk / "filling"
    with served(tmp_path, models, *FLAGS, "--trace-file", str(trace)) as server:
        fill(filling)
        trace_everything(server)
        ask_often(server, 50)
        eventually(
            lambda: metric(server, "mlserve_traces_dropped_total") > 0, limit_s=10, what="lost traces are counted"
        )
        filling.unlink()
        ask_often(server, 50)
        eventually(lambda: trace.exists() and trace.stat().st_size > 1_000, limit_s=10, what="traces are written again")
        check_served(server)


def fill(path: Path) -> None:
    """Takes all room that there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError:
            return


def access_lines(path: Path) -> list[Any]:
    return [line for line in path.read_bytes().splitlines() if b'"access"' in line]


def test_the_access_log_goes_on_after_a_full_disk(tmp_path: Path, models: Path, small_disk: Path) -> None:
    path, filling = small_disk / "access.log", small_disk / "filling"
    with path.open("ab") as output, served(tmp_path, models, *FLAGS, "--access-log", stdout=output) as server:
        fill(filling)
        # More lines than the rest of a page takes.
        ask_often(server, 200)
        eventually(
            lambda: metric(server, "mlserve_access_log_dropped_total") > 0, limit_s=10, what="lost lines are counted"
        )
        filling.unlink()
        before = len(access_lines(path))

        def goes_on() -> bool:
            ask_often(server, 5)
            return len(access_lines(path)) > before

        eventually(goes_on, limit_s=10, what="lines are written again")
        check_served(server)
