"""Attacks: each family with a server of its own and a good client beside it.

`pytest tests/attacks` runs them small and asserts what does not depend on time; `--full` (`make attack`) runs them
larger, holds the good client's p99 to its bound, prints a table and writes benchmarks/results/attacks.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness import results
from tests.attacks.harness.field import Field, Figures, Scale
from tests.conftest import serving

if TYPE_CHECKING:
    from typing import Protocol

    class MakeField(Protocol):
        """Starts a server of these models, beside the one that the good client asks."""

        def __call__(self, models: Mapping[str, bytes] | None = None, *flags: str) -> Field: ...


SMALL = Scale(windows=1, good_requests=40, is_full=False)
FULL = Scale(windows=3, good_requests=500, is_full=True)
# A test at full size may take long; it ends by itself.
FULL_LIMIT_S = 1_800
_FIGURES = pytest.StashKey[list[Figures]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="attacks at full size, with bounds on times")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full", default=False):
        for item in items:
            item.add_marker(pytest.mark.timeout(FULL_LIMIT_S), append=False)


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    # As part of a larger run this file is found too late to add an option.
    return FULL if pytestconfig.getoption("--full", default=False) else SMALL


@pytest.fixture
def make_field(tmp_path: Path, scale: Scale, pytestconfig: pytest.Config) -> Iterator[MakeField]:
    """Starts the server that a test attacks; it ends with the test."""
    from tests import graphs  # noqa: PLC0415 -- onnx takes half a second

    report: Callable[[Figures], None] = pytestconfig.stash.get(_FIGURES, []).append
    with serving(tmp_path) as start:

        def make(models: Mapping[str, bytes] | None = None, *flags: str) -> Field:
            folder = graphs.write_all(tmp_path / "models", ("identity_FP32",))
            for name, file in (models or {}).items():
                graphs.write(folder, name, file)
            return Field(start(folder, *flags), folder, scale, report, lambda: start(folder, *flags))

        yield make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_FIGURES, [])
    is_full = config.getoption("--full", default=False)
    if found and (is_full or config.get_verbosity() > 0):
        terminalreporter.section("attacks")
        terminalreporter.write_line(results.table(found))
    if found and is_full:
        results.write(found, [str(report.nodeid) for report in terminalreporter.stats.get("failed", [])])
