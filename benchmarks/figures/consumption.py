"""What a server process has used: CPU time to the nanosecond, and memory."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

# CPUCLOCK_SCHED of linux/include/linux/posix-timers_types.h: time on a CPU, user and system.
_CPUCLOCK_SCHED = 2


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads, those that have ended included.

    The clock that clock_getcpuclockid(3) gives; /proc/PID/stat shows the same sum in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


@dataclass(frozen=True)
class Memory:
    """Memory that a process holds, in MB (10^6 bytes)."""

    resident_mb: float
    proportional_mb: float
    private_dirty_mb: float


def memory(pid: int) -> Memory:
    """Resident set, and the share of it that this process has to itself."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")

    def megabytes(name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        return int(found.group(1)) * 1024 / 1e6 if found else 0.0

    return Memory(megabytes("Rss"), megabytes("Pss"), megabytes("Private_Dirty"))


def resident_bytes(pid: int) -> int:
    """The resident set now."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that the resident set has been since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Begins a new peak; proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def threads(pid: int) -> int:
    """Threads that live now."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
