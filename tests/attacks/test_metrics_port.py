"""The metrics port under those who ask without reading: probes are answered all the same."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, probe
from tests.raw_http import head

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

PROBE_LIMIT_S = 5.0
ROUNDS = 6


def pipeliners(aim: Aim) -> Tally:
    """Requests without end, whose answers nobody reads."""
    return _beside(aim, head("GET", "/metrics") * 2_000)


def one_slow_scrape_each(aim: Aim) -> Tally:
    """One request each, never read."""
    return _beside(aim, head("GET", "/metrics"))


def silent(aim: Aim) -> Tally:
    """Connections that say nothing."""
    return _beside(aim, b"")


def half_a_header(aim: Aim) -> Tally:
    return _beside(aim, b"GET /livez HTTP/1.1\r\nhost: a\r\nx: ")


def _beside(aim: Aim, sent: bytes) -> Tally:
    tally = Tally()
    host, _, port = aim.metrics.rpartition(":")
    with ExitStack() as stack:
        for _ in range(aim.size):
            opened = stack.enter_context(socket.socket())
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            opened.settimeout(0.2)
            with suppress(OSError):
                opened.connect((host, int(port)))
                opened.sendall(sent)
                tally.sent_bytes += len(sent)
        for _ in range(ROUNDS):
            for path in ("/livez", "/readyz"):
                tally.add(f"{path} {probe(aim.metrics, path, PROBE_LIMIT_S)}", 50)
            time.sleep(0.1)
    return tally


@pytest.mark.parametrize("attack", [pipeliners, one_slow_scrape_each, silent, half_a_header])
def test_probes_are_answered_whatever_the_port_does(make_field: MakeField, attack: Attack) -> None:
    field = make_field()
    name = f"metrics port, {attack.__name__.replace('_', ' ')}"
    size = field.scale.pick(80, 300)
    field.attack(name, attack, size=size, allowed={"/livez 200", "/readyz 200"}, cpu_slack_s=5)
