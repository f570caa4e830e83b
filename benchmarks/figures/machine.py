"""What a result was measured on and by: machine, commit, command; and how quiet the machine was."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from figures.setup import NICENESS, ROOT, Setup

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def described(setup: Setup) -> dict[str, Any]:
    """The head of every result file."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/run.py", *_without_paths(sys.argv[1:])]),
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "server_sha256": _digest(setup.server),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
            "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in ("onnxruntime", "numpy", "grpcio", "tritonclient")},
        "method": {
            "server_core": setup.server_core,
            "client_core": setup.client_core,
            "niceness_of_servers_and_clients": NICENESS if os.geteuid() == 0 else 0,
            "h2load": _first_line("h2load", "--version"),
            "wrk": _first_line("wrk", "-v"),
        },
    }


def _without_paths(arguments: list[str]) -> list[str]:
    """Options as they were given, but only the names of files, which say nothing on another machine."""
    return [Path(argument).name if argument.startswith("/") else argument for argument in arguments]


def busy_s() -> float:
    """CPU seconds that all processes of the machine have used."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(part) for part in fields[:7])
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "not built"


def _git(*arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        return ""
    done = subprocess.run([program, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _first_line(program: str, *arguments: str) -> str:
    found = shutil.which(program)
    if found is None:
        return "not installed"
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else program
