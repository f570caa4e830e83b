"""Crowds of connections that do nothing: others still come in, and the memory comes back."""

from __future__ import annotations

import resource
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally
from tests.raw_http import head, open_socket, read_answer

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


def crowd(aim: Aim) -> Tally:
    """Connections that asked once and stay; they go all at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tally = Tally()
    request = head("GET", "/v2/health/live")
    with ExitStack() as stack:
        held = []
        for _ in range(aim.size):
            try:
                opened = stack.enter_context(open_socket(aim.http))
                opened.sendall(request)
                held.append(opened)
            except OSError:
                tally.add("refused", 0)
        for opened in held:
            answer = None
            with suppress(OSError):
                answer = read_answer(opened, "GET")
            tally.add("ok" if answer else "refused", len(request))
    # What a connection has to have: its buffers.
    tally.declared_bytes = aim.size * 32_768
    return tally


def test_memory_of_a_crowd_comes_back(make_field: MakeField) -> None:
    field = make_field(None, "--max-connections", "9500")
    # The oracle looks at what is left when they have gone.
    field.attack("a crowd of connections", crowd, size=field.scale.pick(4_000, 9_000), cpu_slack_s=10)
