"""Clients that keep their connections while servers come and go, and how many of their requests are lost."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tests.conftest import eventually
from tests.requests_by_hand import Inference, Tensor

ANSWER_LIMIT_S = 20.0
PROGRESS_LIMIT_S = 60.0
MODEL = "identity_FP32"
SOUND = Inference(MODEL, [Tensor.of("x", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32")])


@dataclass
class Crowd:
    """Clients with one connection each, which end only what the server has told them to end.

    Attributes:
        addresses: Where new connections go, the newest last; changed while clients run.
        counts: Answers by their status; what got none is counted under what happened.
        connections: Connections that clients have opened.
    """

    addresses: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, more: int) -> None:
        """Waits until so many more requests have been answered."""
        goal = self.counts["200"] + more
        eventually(
            lambda: self.counts["200"] >= goal or self.lost() > 0, limit_s=PROGRESS_LIMIT_S, what=f"{more} answers"
        )

    def lost(self) -> int:
        """Requests that were not answered as they should be."""
        return sum(self.counts.values()) - self.counts["200"]

    def _run(self, seed: int) -> None:
        pauses = random.Random(seed)  # noqa: S311 -- not for secrets
        body, fields = SOUND.body()
        connection: http.client.HTTPConnection | None = None
        while not self._ended.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(self.addresses[-1], timeout=ANSWER_LIMIT_S)
                with self._lock:
                    self.connections += 1
            try:
                connection.request("POST", SOUND.target, body, fields)
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
                is_last = response.will_close
            except (OSError, http.client.HTTPException) as error:
                outcome, is_last = repr(error), True
            with self._lock:
                self.counts[outcome] += 1
            if is_last:
                connection.close()
                connection = None
            self._ended.wait(pauses.random() * 0.02)
        if connection is not None:
            connection.close()


@contextmanager
def crowd(addresses: list[str], clients: int) -> Iterator[Crowd]:
    """Runs clients for as long as the block lasts."""
    found = Crowd(addresses)
    threads = [threading.Thread(target=found._run, args=(seed,), daemon=True) for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        found._ended.set()
        for thread in threads:
            thread.join(ANSWER_LIMIT_S)
