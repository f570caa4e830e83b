"""Finds the ONNX Runtime that the `onnxruntime` package carries, without importing the package.

Importing it would cost tenths of a second and load the library a second time; the server needs only the file's path.
Run as a module it prints that path.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

_PREFIX = "libonnxruntime.so"


def find_ort_library() -> str | None:
    """The path of the runtime's shared library; `None` if the package is not installed or carries none."""
    spec = find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    # os.scandir, because pathlib would cost the start 10 ms.
    found: list[str] = []
    for folder in folders or ():
        if os.access(f"{folder}/capi", os.R_OK):
            with os.scandir(f"{folder}/capi") as entries:
                found += (entry.path for entry in entries if entry.name.startswith(_PREFIX))
    found.sort()
    return found[-1] if found else None


if __name__ == "__main__":
    print(find_ort_library() or "")  # noqa: T201 -- its only purpose
