"""Finds the ONNX Runtime that the `onnxruntime` package carries, without importing the package.

Importing it would cost tenths of a second and load the library a second time; the server needs only the file's path.
Run as a module it prints that path.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

_PREFIX = "libonnxruntime.so"

# The runtime's Linux wheels write a device id and connect to a collector unless these are set before they are loaded.
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")


def find_ort_library() -> str | None:
    """The path of the runtime's shared library; `None` if the package is not installed or carries none.

    Turns its telemetry off for this process, while nothing else runs.
    """
    os.environ.update(dict.fromkeys(_NO_TELEMETRY, "1"))
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
