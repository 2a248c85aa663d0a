"""Small integers packed into the words of a stored matrix, as each tool packs them. Reads a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block_types import Codes
from .tensor import INTEGERS, Tensor


@dataclass(frozen=True, kw_only=True)
class PackedIntegers:
    """A matrix [rows, columns] of integers of `bits` bits."""

    tensor: Tensor  # of words, two axes
    rows: int
    columns: int
    bits: int  # 2, 4 or 8
    axis: int  # of the stored matrix, along which a word holds neighbours
    transposed: bool = False  # stored as [columns, rows]
    order: tuple[int, ...] | None = None  # for each neighbour of a word: how many integers lie below it; None: in order
    signed: bool = False  # two's complement
    added: int = 0  # to each word, as unsigned, before it is taken apart

    @property
    def per_word(self) -> int:
        return 8 * INTEGERS[self.tensor.dtype] // self.bits

    def expected(self) -> tuple[int, int]:
        """The shape that the stored matrix must have."""
        shape = [self.columns, self.rows] if self.transposed else [self.rows, self.columns]
        shape[self.axis] = -(-shape[self.axis] // self.per_word)
        return shape[0], shape[1]

    def read(self, band: slice) -> Codes:
        """The rows from `band.start` to `band.stop`: uint8, or int8 where they are signed.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        words, before = self._words(band)
        shifts = np.array(self.order or range(self.per_word), words.dtype) * words.dtype.type(self.bits)
        mask = words.dtype.type((1 << self.bits) - 1)
        found: NDArray[np.uint8]
        if self.axis == 1:
            found = ((words[:, :, None] >> shifts) & mask).astype(np.uint8).reshape(len(words), -1)
        else:
            found = ((words[:, None, :] >> shifts[:, None]) & mask).astype(np.uint8).reshape(-1, words.shape[1])
        if self.transposed:
            found = found.T
        found = found[before : before + band.stop - band.start, : self.columns]
        if not self.signed:
            return np.ascontiguousarray(found)
        sign = np.uint8(1 << (self.bits - 1))
        return ((found ^ sign) - sign).view(np.int8)

    def _words(self, band: slice) -> tuple[NDArray[Any], int]:
        """The words that hold these rows, and how many rows before them they hold, too."""
        size = INTEGERS[self.tensor.dtype]
        stored = self.tensor.mapped()
        across = 1 if self.transposed else 0  # the stored axis along which rows lie
        step = self.per_word if across == self.axis else 1
        first, last = band.start // step, -(-band.stop // step)
        part = stored[first:last] if across == 0 else stored[:, first * size : last * size]
        words = np.ascontiguousarray(part).view({1: "u1", 2: "<u2", 4: "<u4"}[size])
        if self.added:
            words = words + words.dtype.type(self.added)
        return words, band.start - first * step
