"""How ONNX Runtime's block formats lay codes out in bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis in bytes; four bits: the even one in the low half, an odd count padded with zero."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, 1)])
    return np.bitwise_or(codes[..., ::2], np.left_shift(codes[..., 1::2], np.uint8(4)))
