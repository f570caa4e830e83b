"""The command line: what goes to the core untouched, and what click does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from mlserve.cli import CORE_COMMANDS, main
from mlserve.errors import ConfigError, ModelLoadError


class Core(ModuleType):
    """Stands for the extension and notes what it is called with."""

    def __init__(self, outcome: int | Exception) -> None:
        super().__init__("mlserve._core")
        self.outcome = outcome
        self.calls: list[tuple[list[str], str | None]] = []

    def run_cli(self, args: Sequence[str], ort_library: str | None) -> int:
        self.calls.append((list(args), ort_library))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def install(monkeypatch: pytest.MonkeyPatch, outcome: int | Exception) -> Core:
    core = Core(outcome)
    monkeypatch.setitem(sys.modules, "mlserve._core", core)
    monkeypatch.setattr("mlserve._core", core, raising=False)
    return core


@pytest.mark.parametrize("command", CORE_COMMANDS)
def test_the_core_gets_its_arguments_untouched(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    core = install(monkeypatch, 7)
    given = [command, "models", "--http-port=0", "--help", "-x", "--", "--odd"]
    assert main(given) == 7
    ((arguments, library),) = core.calls
    assert arguments == given
    assert library is not None
    assert "libonnxruntime.so" in library


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("server.http_port is 70000"), 2), (ModelLoadError("no"), 1)]
)
def test_an_error_of_the_core_is_a_message_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    install(monkeypatch, error)
    assert main(["serve", "x"]) == status
    assert capsys.readouterr().err == f"mlserve: {error}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        f"  {command} " in text for command in (*CORE_COMMANDS, "infer", "models", "load", "unload", "stats", "version")
    )


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: mlserve" in capsys.readouterr().err


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sevre"]) == 2
    assert "No such command 'sevre'" in capsys.readouterr().err
