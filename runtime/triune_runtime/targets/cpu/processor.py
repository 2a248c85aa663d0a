"""What the processor at hand can do. Needs no engine."""

from __future__ import annotations

import functools

from ...machine import this_processor


@functools.cache
def has_vnni() -> bool:
    """Whether this processor adds products of uint8 and int8 in 32 bits; for one that cannot be asked, no."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(this_processor().instructions)
