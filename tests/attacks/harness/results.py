"""The table of an attack run, and its file."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.attacks.harness.field import Figures

RESULTS = ROOT / "benchmarks" / "results" / "attacks.json"
COLUMNS = {
    "family": "family",
    "good p50 ms": "p50_beside_ms",
    "good p99 ms": "p99_beside_ms",
    "p99 ratio": "p99_ratio",
    "to elsewhere": "p99_ratio_to_elsewhere",
    "failed": "good_failed",
    "requests": "requests",
    "sent bytes": "sent_bytes",
    "server CPU s": "server_cpu_s",
    "memory MB": "peak_mb",
}


def table(found: Sequence[Figures]) -> str:
    """For a terminal, and for Markdown."""
    rows = [[str(figures.to_json().get(key, "")) for key in COLUMNS.values()] for figures in found]
    widths = [max(len(cell) for cell in column) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [list(COLUMNS), ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def write(found: Sequence[Figures], failures: Sequence[str], path: Path = RESULTS) -> None:
    """The rows with the machine, the commit and the command."""
    document: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "make attack",
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "failures": list(failures),
        "measurements": [figures.to_json() for figures in found],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        return "unknown"
    done = subprocess.run([program, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
