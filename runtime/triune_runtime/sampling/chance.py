"""Chance as a pure function of (seed, position), so that neither batching nor a restart changes a text.

SplitMix64 (Steele, Lea and Flood 2014): integers of 64 bits alone, so a device computes the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = 0xFFFFFFFFFFFFFFFF
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_UNIT = 2.0**-53


def uniform_number(seed: int, position: int) -> float:
    """A number in [0, 1).

    Args:
        position: how many tokens of the answer come before the one that it draws.
    """
    return (_mixed((_mixed(seed & _MASK) + (position + 1) * _STEP) & _MASK) >> 11) * _UNIT


def uniform_numbers(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """`uniform_number` of each pair: the same bits."""
    steps = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP)
    return (_mixed_all(_mixed_all(seeds) + steps) >> np.uint64(11)) * _UNIT


def _mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _mixed_all(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))
