"""Metrics that other servers' dashboards draw: there after one request, of the right type, and moved by it.

The names are those in the panels and in the autoscaling rule that Triton ships (`deploy/k8s-onprem`), in its metrics
guide, and in KServe's latency dashboard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conformance.triton_clients import CLIENTS, Asked
from tests.conftest import serving
from tests.oracle import metric
from tests.raw_http import ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

ROWS = 3
# What one request of three rows moves each counter by; None where it is a time.
TRITON_COUNTERS: dict[str, int | None] = {
    "nv_inference_request_success": 1,
    "nv_inference_count": ROWS,
    "nv_inference_exec_count": 1,
    "nv_inference_request_duration_us": None,
    "nv_inference_queue_duration_us": None,
    "nv_inference_compute_input_duration_us": None,
    "nv_inference_compute_infer_duration_us": None,
    "nv_inference_compute_output_duration_us": None,
}
TRITON_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
KSERVE_HISTOGRAMS = ("request_preprocess_seconds", "request_predict_seconds", "request_postprocess_seconds")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, graph_folder: Path) -> Iterator[ServerProcess]:
    """A server that has answered one request for `mlp`."""
    with serving(tmp_path_factory.mktemp("dashboards")) as start:
        server = start(graph_folder)
        x = np.ones((ROWS, 8), np.float32)
        CLIENTS["grpc"](server.grpc, Asked("mlp", {"x": x}, {"x": "FP32"}))
        yield server


@pytest.fixture(scope="module")
def page(asked: ServerProcess) -> str:
    return ask(asked.metrics, "GET", "/metrics").body.decode()


def has_samples(page: str, name: str, **labels: str) -> bool:
    """Whether there is a sample of that name with these labels."""
    lines = re.findall(rf"^{name}\{{(.*)\}} ", page, re.MULTILINE)
    return any(all(f'{label}="{value}"' in line for label, value in labels.items()) for line in lines)


@pytest.mark.parametrize(("name", "moved"), TRITON_COUNTERS.items())
def test_tritons_counters_move_with_a_request(asked: ServerProcess, page: str, name: str, moved: int | None) -> None:
    assert f"# TYPE {name} counter\n" in page
    assert has_samples(page, name, model="mlp", version="1")
    found = metric(asked, name, model="mlp", version="1")
    assert found == moved if moved is not None else found >= 0


def test_tritons_times_add_up(asked: ServerProcess) -> None:
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    times = [metric(asked, f"nv_inference_{part}_duration_us", model="mlp") for part in parts]
    # Whole microseconds: each part may have lost up to one.
    assert 0 < sum(times) <= metric(asked, "nv_inference_request_duration_us", model="mlp") + len(parts)


@pytest.mark.parametrize("reason", TRITON_REASONS)
def test_tritons_failures_are_there_before_one_happened(asked: ServerProcess, page: str, reason: str) -> None:
    assert has_samples(page, "nv_inference_request_failure", model="mlp", version="1", reason=reason)
    assert metric(asked, "nv_inference_request_failure", model="mlp", reason=reason) == 0


@pytest.mark.parametrize("name", ["nv_inference_pending_request_count", "nv_model_load_duration_secs"])
def test_tritons_gauges_are_there(page: str, name: str) -> None:
    assert f"# TYPE {name} gauge\n" in page
    assert has_samples(page, name, model="mlp", version="1")


@pytest.mark.parametrize("name", KSERVE_HISTOGRAMS)
def test_kserves_histograms_have_the_request(asked: ServerProcess, page: str, name: str) -> None:
    assert f"# TYPE {name} histogram\n" in page
    for tail in ("_bucket", "_count", "_sum"):
        assert has_samples(page, name + tail, model_name="mlp")
    assert metric(asked, f"{name}_count", model_name="mlp") == 1
    assert metric(asked, f"{name}_bucket", model_name="mlp", le="+Inf") == 1
    assert metric(asked, f"{name}_sum", model_name="mlp") >= 0
