"""A server of the benchmark models for the suites in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ServerProcess, serving

MODELS = Path(__file__).resolve().parent / "models"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for the whole run."""
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(MODELS)
