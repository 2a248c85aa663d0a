"""Which tokens may come next, a bit each: bit t % 32 of word t // 32 of an array of uint32 is token t's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]


def words(tokens: int) -> int:
    """How many words hold a bit for each of `tokens` tokens."""
    return (tokens + 31) // 32


def places(tokens: Sequence[int]) -> tuple[NDArray[np.int64], Bits]:
    """The words in which `tokens` have their bits, each once, and what these bits make of each word."""
    ids = np.array(tokens, np.int64)
    found, inverse = np.unique(ids // 32, return_inverse=True)
    masks = np.zeros(len(found), np.uint32)
    np.bitwise_or.at(masks, inverse, np.uint32(1) << (ids % 32).astype(np.uint32))
    return found, masks


def unpacked(bits: Bits, tokens: int) -> NDArray[np.bool_]:
    """Whether each of `tokens` tokens may come."""
    return np.unpackbits(bits.view(np.uint8), count=tokens, bitorder="little").view(np.bool_)
