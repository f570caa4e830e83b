"""The command line.

`serve`, `inspect` and `config` belong to the Rust core, flags and help included: they are handed over before anything
else is imported, so that the server comes up without click, numpy or gRPC. The other commands are click's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

# Commands whose arguments go to the core as they are.
CORE_COMMANDS = ("serve", "inspect", "config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in CORE_COMMANDS:
        from mlserve.cli.core import run  # noqa: PLC0415 -- loads the extension, which the other commands do not need

        return run(given)
    from mlserve.cli.commands import run_group  # noqa: PLC0415 -- click would slow `serve` down

    return run_group(given)
