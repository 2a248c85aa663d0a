"""Whether an engine gets on: it must make a step every few seconds while there is something to do.

Its sockets say nothing of that: where one of several machines is gone, the others may wait for it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STALL_S = 14.0  # so that everybody is answered within 15
_MOST_S = 1.0  # that one look counts: while the machine sleeps, or has no time for this process, nobody stands still


class Progress:
    """Looked at often, by one thread."""

    def __init__(self, stall_s: float = STALL_S, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            stall_s: what is too long.
        """
        self._stall_s, self._clock = stall_s, clock
        self._steps = 0
        self._stood_s = 0.0
        self._looked = clock()

    def made(self, steps: int) -> None:
        """It has made so many steps in all."""
        if steps != self._steps:
            self._steps, self._stood_s = steps, 0.0

    def stood_still(self, *, busy: bool) -> float | None:
        """For how long it has made no step, if that is too long.

        Args:
            busy: there is something to do.
        """
        now = self._clock()
        passed_s, self._looked = min(now - self._looked, _MOST_S), now
        self._stood_s = self._stood_s + passed_s if busy else 0.0
        return self._stood_s if self._stood_s > self._stall_s else None
