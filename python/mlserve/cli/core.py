"""Hands a command to the Rust core."""

from __future__ import annotations

# The built-in part of `signal`: the rest costs the start milliseconds and is not needed.
import _signal  # type: ignore[import-not-found]
import os
import sys
from collections.abc import Sequence

from mlserve.errors import MlserveError
from mlserve.serving.runtime import find_ort_library

# Wrong usage or settings, as click has it.
_USAGE = 2


def run(arguments: Sequence[str]) -> int:
    """Runs `serve`, `inspect` or `config`; the core handles signals, flags and help itself."""
    try:
        from mlserve import _core  # noqa: PLC0415 -- a missing extension is told below
    except ImportError as error:
        print(f"mlserve: the extension module cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
        return _USAGE
    _fill_closed_streams()
    # The core catches signals itself. Python's own handler would run as well, and end the process after a clean stop.
    previous = _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    try:
        return _core.run_cli(list(arguments), find_ort_library())
    except MlserveError as error:
        print(f"mlserve: {error}", file=sys.stderr)  # noqa: T201 -- the command's own message
        return _USAGE if error.fault == "client" else 1
    finally:
        # None: set by another library, which Python cannot set again.
        if previous is not None:
            _signal.signal(_signal.SIGINT, previous)


def _fill_closed_streams() -> None:
    """Puts something in the place of standard streams that are closed: a connection must not get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
