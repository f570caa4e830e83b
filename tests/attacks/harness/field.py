"""Runs an attack beside a good client, in interleaved windows with and without it, and says what it did to the server.

What depends on time (the good client's p99) is held to its bound only where the machine is quiet: `make attack`. An attack
also takes cores, caches and the kernel's time from whoever asks. Where the bound is passed, the same attack is therefore
run once more against another server of this machine: what the good client notices of that is the machine's part.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.attacks.harness import process
from tests.attacks.harness.aim import Aim, Attack, Tally, probe
from tests.attacks.harness.good import Asked, GoodClient
from tests.conftest import eventually
from tests.oracle import Oracle

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.conftest import ServerProcess

# An attack is to end by itself; one that does not has met a server that holds it.
ATTACK_LIMIT_S = 90.0
FULL_ATTACK_LIMIT_S = 600.0
ATTACK_NICENESS = 10
READY = "ready"
PROBE_LIMIT_S = 5.0
# What a server may take beyond what it was sent: tables, stacks, an allocator's habits.
SLACK_BYTES = 48 << 20
MEMORY_FACTOR = 10
CPU_PER_REQUEST_S = 1.0
REQUEST_BYTES = 64 << 10
P99_RATIO = 1.2
# Under this a p99 is the machine's and not the server's.
P99_FLOOR_S = 0.002


@dataclass(frozen=True)
class Scale:
    """How much an attack does: little in `make test`, more where times are looked at."""

    windows: int
    good_requests: int
    is_full: bool

    def pick(self, small: int, full: int) -> int:
        """A size for this run."""
        return full if self.is_full else small


@dataclass
class Figures:
    """What an attack did to a server and to the good client beside it.

    Attributes:
        elsewhere: What the good client was answered while another server was attacked; empty if that was not tried.
    """

    name: str
    alone: Asked = field(default_factory=Asked)
    beside: Asked = field(default_factory=Asked)
    elsewhere: Asked = field(default_factory=Asked)
    tally: Tally = field(default_factory=Tally)
    cpu_s: float = 0.0
    peak_bytes: int = 0
    probes_lost: int = 0

    @property
    def ratio(self) -> float:
        """The good client's p99 beside the attack over its p99 alone."""
        return self.beside.quantile(0.99) / max(self.alone.quantile(0.99), P99_FLOOR_S)

    @property
    def ratio_to_elsewhere(self) -> float | None:
        """The same over its p99 while another server was attacked, if that was measured."""
        if not self.elsewhere.times_s:
            return None
        return self.beside.quantile(0.99) / max(self.elsewhere.quantile(0.99), P99_FLOOR_S)

    def to_json(self) -> dict[str, Any]:
        """A row of the results."""
        elsewhere: dict[str, Any] = {}
        if (ratio := self.ratio_to_elsewhere) is not None:
            elsewhere = {
                "p99_elsewhere_ms": round(self.elsewhere.quantile(0.99) * 1e3, 3),
                "p99_ratio_to_elsewhere": round(ratio, 2),
            }
        return {
            "family": self.name,
            "good_requests": len(self.beside.times_s),
            "good_failed": len(self.alone.failures) + len(self.beside.failures),
            "p50_alone_ms": round(self.alone.quantile(0.5) * 1e3, 3),
            "p50_beside_ms": round(self.beside.quantile(0.5) * 1e3, 3),
            "p99_alone_ms": round(self.alone.quantile(0.99) * 1e3, 3),
            "p99_beside_ms": round(self.beside.quantile(0.99) * 1e3, 3),
            "p99_ratio": round(self.ratio, 2),
            **elsewhere,
            "requests": self.tally.requests,
            "sent_bytes": self.tally.sent_bytes,
            "outcomes": dict(self.tally.outcomes),
            "server_cpu_s": round(self.cpu_s, 3),
            "peak_mb": round(self.peak_bytes / 1e6, 1),
            "probes_lost": self.probes_lost,
        }


@dataclass
class Field:
    """A server under attack.

    Attributes:
        start_another: Starts one like it; none: what the machine's part is cannot be told.
    """

    server: ServerProcess
    folder: Path
    scale: Scale
    report: Callable[[Figures], None]
    start_another: Callable[[], ServerProcess] | None = None

    def attack(
        self,
        name: str,
        attack: Attack,
        *,
        size: int = 1,
        allowed: Collection[str] | None = None,
        memory_slack: int = SLACK_BYTES,
        cpu_slack_s: float = 1.0,
    ) -> Figures:
        """Runs the attack and holds the server to everything that it promises.

        Args:
            allowed: Outcomes that the attack's requests may have; none: any.
        """
        oracle = Oracle(self.server)
        figures = self._measure(name, attack, size)
        self.report(figures)
        check_figures(figures, allowed, memory_slack, cpu_slack_s, self.scale)
        self.check_probes()
        oracle.check()
        return figures

    def check_probes(self) -> None:
        """Live and ready, said at once."""
        for path in ("/livez", "/readyz"):
            eventually(
                lambda path=path: probe(self.server.metrics, path, PROBE_LIMIT_S) == 200,  # type: ignore[misc]
                limit_s=PROBE_LIMIT_S,
                what=f"{path} says 200",
            )

    def _measure(self, name: str, attack: Attack, size: int) -> Figures:
        aim = self._aim_at(self.server, size)
        figures = Figures(name)
        good = GoodClient(self.server.http, self.server.grpc)
        try:
            good.ask_while(lambda: False, self.scale.good_requests)
            for _ in range(self.scale.windows):
                _join(figures.alone, good.ask_while(lambda: False, self.scale.good_requests))
                self._window(figures, attack, aim, good)
                if figures.alone.failures or figures.beside.failures:
                    break
            else:
                if self.start_another and self.scale.is_full and figures.ratio > P99_RATIO:
                    self._measure_elsewhere(figures, attack, self._aim_at(self.start_another(), size), good)
        finally:
            good.close()
        return figures

    def _aim_at(self, server: ServerProcess, size: int) -> Aim:
        return Aim(server.http, server.grpc, server.metrics, server.process.pid, self.folder, size)

    def _measure_elsewhere(self, figures: Figures, attack: Attack, other: Aim, good: GoodClient) -> None:
        for _ in range(self.scale.windows):
            with Attacker(attack, other) as attacker:
                _join(figures.elsewhere, self._ask_beside(attacker, good))
                attacker.tally()

    def _ask_beside(self, attacker: Attacker, good: GoodClient) -> Asked:
        # What it takes to start is this machine's work, and not the attack.
        attacker.go()
        end = time.monotonic() + (FULL_ATTACK_LIMIT_S if self.scale.is_full else ATTACK_LIMIT_S)
        return good.ask_while(lambda: attacker.is_busy() and time.monotonic() < end, self.scale.good_requests)

    def _window(self, figures: Figures, attack: Attack, aim: Aim, good: GoodClient) -> None:
        before, used = process.resident_bytes(aim.pid), process.cpu_s(aim.pid)
        process.reset_peak(aim.pid)
        with Attacker(attack, aim) as attacker:
            _join(figures.beside, self._ask_beside(attacker, good))
            tally = attacker.tally()
            # On a busy machine a loop may not have turned for a second, and the probe says so: that is an answer, too.
            answer = probe(aim.metrics, "/livez", PROBE_LIMIT_S)
            if answer is None or (self.scale.is_full and answer != 200):
                figures.probes_lost += 1
        figures.cpu_s += process.cpu_s(aim.pid) - used
        figures.peak_bytes = max(figures.peak_bytes, process.peak_bytes(aim.pid) - before)
        _join_tally(figures.tally, tally)


class Attacker:
    """An attack in a process of its own, so that it and the good client do not wait for each other."""

    def __init__(self, attack: Attack, aim: Aim) -> None:
        context = multiprocessing.get_context("spawn")
        self._results, given = context.Pipe()
        self._process = context.Process(target=_carry_out, args=(given, attack, aim), daemon=True)
        self._process.start()
        given.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._results.close()

    def go(self) -> None:
        """Lets it begin, once it is ready."""
        assert self._results.recv() == READY
        self._results.send(READY)

    def is_busy(self) -> bool:
        """Whether it goes on."""
        return not self._results.poll()

    def tally(self) -> Tally:
        """What it has done; it had its time."""
        if not self._results.poll(PROBE_LIMIT_S):
            pytest.fail("the attack has not ended: the server holds it")
        found = self._results.recv()
        if isinstance(found, str):
            pytest.fail(f"the attack itself failed: {found}")
        assert isinstance(found, Tally)
        return found


def _carry_out(results: Connection, attack: Attack, aim: Aim) -> None:
    # It would have a machine of its own: what counts is what the server does, not who has the core.
    os.nice(ATTACK_NICENESS)
    results.send(READY)
    results.recv()
    try:
        results.send(attack(aim))
    except BaseException:  # noqa: BLE001 -- whatever it was, the test says it
        results.send(traceback.format_exc())


def check_figures(
    figures: Figures, allowed: Collection[str] | None, memory_slack: int, cpu_slack_s: float, scale: Scale
) -> None:
    """Fails unless the attack cost what attacks may cost, and nobody else noticed it."""
    tally, name = figures.tally, figures.name
    assert not figures.alone.failures, f"{name}: the good client failed without the attack: {figures.alone.failures}"
    assert not figures.beside.failures, f"{name}: the good client failed: {figures.beside.failures}"
    assert figures.probes_lost == 0, f"{name}: {figures.probes_lost} probes of liveness were not answered"
    if allowed is not None:
        assert set(tally.outcomes) <= set(allowed), f"{name}: outcomes {dict(tally.outcomes)}, allowed {allowed}"
    limit = tally.declared_bytes + MEMORY_FACTOR * tally.held_bytes + memory_slack
    assert figures.peak_bytes <= limit, f"{name}: {figures.peak_bytes / 1e6:.0f} MB more, at most {limit / 1e6:.0f}"
    units = max(tally.requests, tally.sent_bytes / REQUEST_BYTES)
    spent = max(0.0, figures.cpu_s - cpu_slack_s * scale.windows)
    assert spent <= CPU_PER_REQUEST_S * units, f"{name}: {figures.cpu_s:.1f} CPU seconds for {units:.0f} requests"
    if scale.is_full:
        ratio = min(figures.ratio, figures.ratio_to_elsewhere or figures.ratio)
        assert ratio <= P99_RATIO, f"{name}: the good client's p99 is {ratio:.2f} times as long"


def _join(total: Asked, more: Asked) -> None:
    total.times_s += more.times_s
    total.failures += more.failures


def _join_tally(total: Tally, more: Tally) -> None:
    total.requests += more.requests
    total.sent_bytes += more.sent_bytes
    total.held_bytes = max(total.held_bytes, more.held_bytes)
    total.declared_bytes = max(total.declared_bytes, more.declared_bytes)
    total.outcomes += Counter(more.outcomes)
