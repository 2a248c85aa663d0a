"""A matrix as the quantized blocks that a checkpoint holds it in. Knows no file and no format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .block_types import Codes


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """value = scale * code + minimum, with `minimum` None standing for zero.

    Q8_0: int8 codes, no minimum. Q4_1: codes 0..15 and its own minimum. Q4_0 (value = scale * (code - 8)): codes 0..15 and
    minimum = -8 * scale, which float32 holds exactly.
    """

    codes: Codes  # [rows, columns]; int8 for signed codes of eight bits, uint8 (below 2^bits) for others
    scale: NDArray[np.float32]  # [rows, columns / block]
    minimum: NDArray[np.float32] | None  # [rows, columns / block]
    bits: int

    @property
    def block(self) -> int:
        """Columns that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    def unsigned(self) -> NDArray[np.uint8]:
        """The codes with their smallest possible value at zero; goes with `offset`."""
        if self.codes.dtype == np.uint8:
            return self.codes.view(np.uint8)
        return self.codes.view(np.uint8) ^ np.uint8(128)  # two's complement + 128

    def offset(self) -> NDArray[np.float32]:
        """What makes value = scale * unsigned code + offset; [rows, columns / block]."""
        offset = np.zeros_like(self.scale) if self.minimum is None else self.minimum
        return offset if self.codes.dtype == np.uint8 else offset - np.float32(128) * self.scale
