"""Bystanders: clients that ask again and again, over all protocols, while something happens to the server."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .answers import HUNG, PATIENCE_S, PROTOCOLS, QUESTIONS, REFUSED, Addresses, Outcome, Texts, ask

_PAUSE_S = 0.05  # after an answer
_REFUSED_PAUSE_S = 0.5  # who is refused is told to wait for a second
_GRACE_S = 10.0  # beyond what a client itself waits


class Crowd:
    """Clients at work for as long as a `with` block, and what became of each request."""

    def __init__(
        self, where: Addresses, texts: Texts, *, size: int = 8, seed: str = "", protocols: Sequence[str] = PROTOCOLS,
        patience_s: float = PATIENCE_S,
    ) -> None:  # fmt: skip
        self._where, self._texts, self._patience_s = where, texts, patience_s
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(protocols[n % len(protocols)], f"{seed}/{n}"), daemon=True)
            for n in range(size)
        ]
        self.outcomes: list[Outcome] = []

    def begin(self) -> Self:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()
        return self

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Ask no more, and wait for the last answers; who has none by then hangs."""
        self._over.set()
        until = time.monotonic() + 2 * self._patience_s + _GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in self._threads)
        with self._lock:
            self.outcomes += [Outcome(HUNG, "", "its client never came back")] * hanging
        self._threads = []

    def take(self) -> list[Outcome]:
        """What has come since this was last asked; it is counted no more."""
        with self._lock:
            taken, self.outcomes = self.outcomes, []
        return taken

    def counts(self) -> dict[str, int]:
        """How many requests came to what."""
        with self._lock:
            kinds = [outcome.kind for outcome in self.outcomes]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def _work(self, protocol: str, seed: str) -> None:
        chance = random.Random(seed)
        while not self._over.is_set():
            outcome = ask(self._where, protocol, chance.choice(QUESTIONS), self._texts, self._patience_s)
            with self._lock:
                self.outcomes.append(outcome)
            self._over.wait(_REFUSED_PAUSE_S if outcome.kind == REFUSED else _PAUSE_S)
