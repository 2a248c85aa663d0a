"""The processor's memory: how much there is, how much is free, and what limits it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from triune_runtime.cgroup import Files, memory_limits


@dataclass(frozen=True)
class Memory:
    """Bytes; None: not known."""

    total: int | None
    available: int | None
    limit: int | None = None  # of a cgroup; None: none
    used: int = 0  # of that
    swap_used: int = 0

    @property
    def free(self) -> int | None:
        """That can be had now."""
        own = None if self.limit is None else max(self.limit - self.used, 0)
        return min((one for one in (self.available, own) if one is not None), default=None)


def read_memory(files: Files) -> Memory:
    """Of the machine and of the cgroup that leaves least."""
    text = files.read("proc/meminfo")
    limit, used = min(memory_limits(files), key=lambda one: one[0] - one[1], default=(None, 0))
    swapped = (_bytes(text, "SwapTotal") or 0) - (_bytes(text, "SwapFree") or 0)
    return Memory(_bytes(text, "MemTotal"), _bytes(text, "MemAvailable"), limit, used, swapped)


def _bytes(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else None
