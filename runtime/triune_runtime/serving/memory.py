"""Whether this process has as much memory as it may: what comes is refused then, before the system ends the process for it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from ..allocator import return_free_memory
from ..errors import Overloaded

VARIABLE = "TRIUNE_MAX_MEMORY"  # of the environment: megabytes; 0: no limit
_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")
_LOOK_S = 0.1  # between two looks


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(_STATM.read_text().split()[1]) * _PAGE


class MemoryLimit:
    """A limit in bytes. Asked by one thread at a time."""

    def __init__(self, most: int, measure: Callable[[], int] = resident, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            most: bytes; 0: no limit.
        """
        self._most, self._measure, self._clock = most, measure, clock
        self._seen, self._looked = 0, -_LOOK_S

    @classmethod
    def of_environment(cls) -> MemoryLimit:
        """As the environment says."""
        return cls(int(os.environ.get(VARIABLE, "0") or 0) * 1_000_000)

    def check(self, *, idle: bool) -> None:
        """Make sure that there is room for a request.

        Args:
            idle: none is being served: one is let in whatever there is, else nobody ever would be.

        Raises:
            Overloaded: the process has as much as it may.
        """
        if not self._most or idle:
            return
        if (now := self._clock()) - self._looked >= _LOOK_S:
            self._looked, self._seen = now, self._measure()
            if self._seen >= self._most:
                return_free_memory()
                self._seen = self._measure()
        if self._seen >= self._most:
            seen, most = (number // 1_000_000 for number in (self._seen, self._most))
            said = f"the engine's process has {seen:,} MB of memory, the limit is {most:,} MB"
            raise Overloaded(said, "send it again later")
