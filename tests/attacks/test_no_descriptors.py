"""A process without file descriptors left answers its probes all the same."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, probe
from tests.raw_http import open_socket

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

FEW_DESCRIPTORS = 160
PROBE_LIMIT_S = 5.0


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """What is started within may open so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def too_many(aim: Aim) -> Tally:
    """More connections than the server has descriptors; probes are asked for meanwhile."""
    tally = Tally()
    with ExitStack() as stack:
        for _ in range(aim.size):
            with suppress(OSError):
                stack.enter_context(open_socket(aim.http)).sendall(b"GET /")
        for _ in range(10):
            for path in ("/livez", "/readyz", "/metrics"):
                tally.add(f"{path} {probe(aim.metrics, path, PROBE_LIMIT_S)}", 10)
            time.sleep(0.1)
    return tally


def test_probes_are_answered_without_descriptors(make_field: MakeField) -> None:
    with descriptors(FEW_DESCRIPTORS):
        field = make_field(None, "--max-connections", "1000")
    allowed = {"/livez 200", "/readyz 200", "/metrics 200"}
    field.attack("no descriptors left", too_many, size=field.scale.pick(300, 900), allowed=allowed)
