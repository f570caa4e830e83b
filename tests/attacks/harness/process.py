"""What a process has used: CPU time and memory, from /proc."""

from __future__ import annotations

import re
import time
from pathlib import Path

# CPUCLOCK_SCHED of linux/include/linux/posix-timers_types.h: time on a CPU, user and system.
_CPUCLOCK_SCHED = 2


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads, those that have ended included."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def resident_bytes(pid: int) -> int:
    """The resident set now."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that the resident set has been since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Begins a new peak; proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def descriptors(pid: int) -> int:
    """Open file descriptors."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _status_bytes(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
