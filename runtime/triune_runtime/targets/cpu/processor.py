"""What the processor at hand can do. Needs no engine."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def has_vnni() -> bool:
    """Whether this processor adds products of uint8 and int8 in 32 bits; for one that cannot be asked, no."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").partition("\nflags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)
