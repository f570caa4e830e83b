"""What a run is given: programs, cores, rounds; and the programs that have to be installed for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "benchmarks" / "models"
PACKAGES = {"h2load": "nghttp2-client", "wrk": "wrk", "taskset": "util-linux", "cc": "gcc"}
# Servers and clients get the same raised priority, so that other work on the machine costs both alike.
NICENESS = -15


class BenchmarkError(Exception):
    """Something could not be measured; the text says what and why."""


def tool(name: str) -> str:
    """The path of an installed program."""
    found = shutil.which(name)
    if found is None:
        raise BenchmarkError(f"{name} is not installed; on Debian: apt-get install {PACKAGES.get(name, name)}")
    return found


def find_ort_library() -> Path:
    """ONNX Runtime's shared library: `MLSERVE_ORT_LIB`, or the one that the package onnxruntime carries."""
    named = os.environ.get("MLSERVE_ORT_LIB")
    if named:
        return Path(named)
    spec = find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    found = sorted(path for folder in folders or () for path in Path(folder).glob("capi/libonnxruntime.so*"))
    if not found:
        raise BenchmarkError("no ONNX Runtime: install the package onnxruntime or set MLSERVE_ORT_LIB")
    return found[-1]


@dataclass(frozen=True)
class Setup:
    """The options of one run.

    Attributes:
        server: The plain binary of mlserve.
        before: The plain binary of an earlier build, measured beside it; `None`: none.
        console: The Python command of mlserve; `None`: not installed.
        ort_library: What both load.
        triton_run: Starts Triton: `PATH REPOSITORY GRPC_PORT HTTP_PORT VENV [flags]`; `None`: not measured.
        triton_venv: The Python environment that the starter keeps Triton in.
        proof_models: A folder of models that `proof` loads beside those that it makes; `None`: none.
        rounds: Repetitions; `None`: as many as the scenario needs.
        window_s: About how long one measurement takes.
        server_core: Where servers run.
        client_core: Where load comes from.
    """

    server: Path
    before: Path | None
    console: Path | None
    ort_library: Path
    triton_run: Path | None
    triton_venv: Path
    proof_models: Path | None = None
    rounds: int | None = None
    window_s: float = 2.0
    server_core: int = 0
    client_core: int = 1
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mlserve-benchmark-")))

    def rounds_or(self, usual: int) -> int:
        """How often to repeat."""
        return self.rounds or usual


def raised() -> list[str]:
    """The beginning of a command that runs at the common priority, if this user may ask for it."""
    return [tool("nice"), "-n", str(NICENESS)] if os.geteuid() == 0 else []


def pinned(core: int | None) -> list[str]:
    """The beginning of a command that runs on one core, or on all."""
    return raised() + ([] if core is None else [tool("taskset"), "-c", str(core)])
