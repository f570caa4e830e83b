"""h2spec, the conformance tests of HTTP/2, unmodified; `make h2spec` builds it with Go and runs this.

Not part of `make test`: it is downloaded. What it counted is printed.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

BINARY = ROOT / ".venv-h2spec" / "h2spec"
LIMIT_S = 120.0
# How long h2spec waits for each answer: a server that is busy elsewhere is no worse a server.
WAIT_S = "5"
COUNTS = re.compile(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed$", re.MULTILINE)


@pytest.mark.parametrize("flags", [(), ("--strict",)], ids=["plain", "strict"])
def test_every_case_passes(example_server: ServerProcess, flags: tuple[str, ...]) -> None:
    if not BINARY.exists():
        pytest.skip("h2spec is not installed: run `make h2spec`")
    host, port = example_server.grpc.rsplit(":", 1)
    command = [str(BINARY), "-h", host, "-p", port, "-o", WAIT_S, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    counts = COUNTS.search(done.stdout)
    assert counts, done.stdout + done.stderr
    print(counts[0])  # noqa: T201 -- what `make h2spec` shows
    total, passed, skipped, failed = map(int, counts.groups())
    assert (passed, skipped, failed) == (total, 0, 0), done.stdout
