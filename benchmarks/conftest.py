"""A server of the benchmark models for the suites in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerProcess, serving

MODELS = Path(__file__).resolve().parent / "models"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for the whole run."""
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(MODELS)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keeps of the machine what the other result files say: neither its name nor every flag of its processor."""
    cpu = machine_info["cpu"]
    kept = {key: machine_info[key] for key in ("system", "release", "python_version")}
    kept["cpu"] = {key: cpu.get(key) for key in ("brand_raw", "count")}
    machine_info.clear()
    machine_info.update(kept)


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    """Leaves out what the folder and the branch were called where it was measured."""
    for key in ("project", "branch"):
        commit_info.pop(key, None)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Keeps the statistics and leaves out the single measurements, a hundred times as much."""
    for measured in output_json["benchmarks"]:
        measured["stats"].pop("data", None)
