"""How likely a token is beside the best one, in whole numbers: their sums do not depend on the order, nor on who adds up.

A token whose scaled score is `below` the best one's weighs 2^-octaves of 2^42, with octaves = below x log2(e) cut to 2^-22. By
integers alone, so that a device finds the same: with e = octaves x 2^22 in whole numbers, rounded down,

    weight = COARSE[e / 2^11 mod 2^11] x fine(e mod 2^11) / 2^(10 + e / 2^22), rounded down, fine(j) = 2^26 - j x 45426 / 2^12

where COARSE[i] is 2^26 x 2^(-i / 2^11), rounded. It is within 4e-7 of exp(-below), of itself, and 2^-42; it never rises with
`below`. What is more than 29.2 below weighs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BEST = 1 << 42  # the weight of the best token; the sum of two million of them has 63 bits
COARSE = np.rint(2.0 ** (26 - np.arange(2048) / 2048)).astype(np.uint32)
OCTAVES_A_NAT = 387_270_501  # log2(e) x 2^28: with the 24 bits of a float32 its product is exact as a double
FARTHEST = np.float32(30)  # nothing that far below weighs anything

_FINE = (1 << 26) - (np.arange(2048) * 45_426 >> 12).astype(np.float64)
# The same for the octaves 0 to 43, as doubles: products of these and of `_FINE` are exact.
_COARSE = np.concatenate([np.ldexp(COARSE.astype(np.float64), -10 - octave) for octave in range(44)])
_STEPS_A_NAT = OCTAVES_A_NAT * 2.0**-6


def weigh(below: NDArray[np.float32]) -> NDArray[np.int64]:
    """The weights of tokens whose scaled scores are so much below the best, 0 or more."""
    steps = np.multiply(np.minimum(below, FARTHEST), _STEPS_A_NAT, dtype=np.float64).astype(np.int64)
    weights: NDArray[np.int64] = (_COARSE.take(steps >> 11) * _FINE.take(steps & 2047)).astype(np.int64)
    return weights
