"""Triton's load generator, unmodified, and what it reports of the server; `make perf-analyzer` installs it and runs this.

Its last wheel with a binary is tritonclient 2.50.0. Not part of `make test`: it is downloaded, with libraries that the
binary is linked to.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from mlserve import Client
from tests import graphs
from tests.conftest import ROOT, serving

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

HOME = ROOT / ".venv-perf-analyzer"
BINARY = HOME / "bin" / "perf_analyzer"
LIBRARIES = ("libcudart.so.12", "libb64.so.0d")
WAYS: list[tuple[str, ...]] = [
    (),
    ("--concurrency-range", "8", "--async"),
    ("--shared-memory", "system", "--output-shared-memory-size", "1024"),
    ("-b", "4"),
]
# Three short windows, which are stable whatever they show. Not `--request-count`: a server that has answered all before
# the first window is looked at leaves perf_analyzer waiting for ever.
SHORT = ("--measurement-interval", "200", "--stability-percentage", "999", "--max-trials", "20")
LIMIT_S = 120.0
# Words of a report in which something went wrong; the exit status does not always tell.
COMPLAINT = re.compile(r"^.*\b(error|fail|unable|invalid|warning)\w*\b.*$", re.IGNORECASE | re.MULTILINE)

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs the binary and returns what it printed."""
    if not BINARY.exists():
        pytest.skip("perf_analyzer is not installed: run `make perf-analyzer`")
    folders = {str(path.parent) for name in LIBRARIES for path in HOME.rglob(name)}
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join([*sorted(folders), os.environ.get("LD_LIBRARY_PATH", "")])}

    def run_binary(*arguments: str) -> str:
        command = [str(BINARY), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        return text

    started = subprocess.run([str(BINARY), "--version"], env=env, capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"perf_analyzer does not start here: {started.stderr.strip()}")
    return run_binary


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("perf-analyzer")
    repository = graphs.write_all(folder / "models", ["mlp", "add_FP32"])
    with serving(folder) as start:
        yield start(repository, "--allow-client-shm")


def figure(text: str, label: str) -> float:
    """A number of the report."""
    found = re.search(rf"^\s*{label}: ([\d.]+)", text, re.MULTILINE)
    assert found, f"no '{label}' in: {text}"
    return float(found[1])


def rows_of(server: ServerProcess, model: str) -> int:
    """Rows that the server has run so far, by its own count."""
    with Client(server.grpc) as client:
        (found,) = client.statistics(model)
    return found.inference_count


@pytest.mark.parametrize(
    ("protocol", "arguments"),
    [*itertools.product(["grpc", "http"], WAYS), ("grpc", ("--streaming", "--async", "--concurrency-range", "4"))],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_it_measures_and_reads_the_servers_statistics(
    run: Run, server: ServerProcess, protocol: str, arguments: tuple[str, ...]
) -> None:
    address = server.http if protocol == "http" else server.grpc
    before = rows_of(server, "mlp")
    text = run("-m", "mlp", "-i", protocol, "-u", address, *SHORT, *arguments)
    assert figure(text, "Request count") > 0
    assert figure(text, "Throughput") > 0
    # These come from ModelStatistics; perf_analyzer shows them only if the extension is offered.
    for label in ("Inference count", "Successful request count", "Execution count"):
        assert figure(text, label) > 0
    assert rows_of(server, "mlp") - before >= figure(text, "Inference count")
    assert re.search(r"Avg request latency: \d+ usec \(overhead \d+ usec \+ queue \d+ usec \+ compute input", text), (
        text
    )
    assert not COMPLAINT.search(text), text


def test_it_finds_two_inputs_and_a_shape_that_it_is_given(run: Run, server: ServerProcess) -> None:
    shapes = ("--shape", "a:5", "--shape", "b:5")
    text = run("-m", "add_FP32", "-i", "grpc", "-u", server.grpc, *SHORT, *shapes)
    assert figure(text, "Inference count") > 0
    assert not COMPLAINT.search(text), text


def test_it_reads_the_metrics_page(run: Run, server: ServerProcess) -> None:
    metrics = ("--collect-metrics", "--metrics-url", f"http://{server.metrics}/metrics", "--metrics-interval", "100")
    text = run("-m", "mlp", "-i", "grpc", "-u", server.grpc, *SHORT, *metrics)
    assert figure(text, "Inference count") > 0
