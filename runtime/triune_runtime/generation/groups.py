"""Several answers to one prompt, each drawn from the same logits with a seed of its own."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: multiples of it are all different, and far apart


def derived_seed(seed: int, index: int) -> int:
    """The seed of answer `index` to a prompt; answer 0 has the request's own, and so is what it is alone."""
    return (seed + index * _ODD) & _MASK
