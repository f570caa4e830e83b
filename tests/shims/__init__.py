"""Small libraries between a server and its C library: what the system says is as a test wants it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent


def build(name: str, folder: Path) -> Path:
    """Compiles one of them into `folder`, for `LD_PRELOAD`; without a compiler the test is skipped."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = folder / f"{name}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_FOLDER / f"{name}.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library
