"""One tensor in a file: where its bytes lie and how they become numbers. Knows no model and no file format's header."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .block_types import BLOCK, BLOCK_TYPES, BlockType, Codes, Unpacked
from .quantized_blocks import Blocks
from .super_block_types import SUPER_BLOCK_TYPES

_BAND_BYTES = 1 << 21  # stored bytes decoded at a time: keeps the working copies small beside the result

FP8 = "F8_E4M3"
PLAIN = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, FP8: 1}  # dtype -> bytes an element
INTEGERS = {"U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}  # codes and indices of packed weights, never weights themselves
BLOCKED = {**BLOCK_TYPES, **SUPER_BLOCK_TYPES}

_FP8_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # of each code


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that lies in a file. Reading maps just its bytes and lets go of them again; nothing is kept."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of PLAIN, BLOCKED or INTEGERS, or what a subclass says
    path: Path
    offset: int  # bytes from the start of the file
    nbytes: int
    interleaved_heads: int | None = None  # rows are so many heads of interleaved rotary pairs; reads undo that

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def float32(self) -> NDArray[np.float32]:
        """The values, a new array of `shape`.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        values = np.empty(self.shape, np.float32)
        if not self.size:
            return values
        rows = values.reshape(self._rows, -1)
        for band, stored in self._bands():
            rows[band] = _values(stored, self.dtype)
        return values

    @property
    def has_blocks(self) -> bool:
        """Whether `blocks` gives some; reads nothing."""
        return self.dtype in BLOCKED and BLOCKED[self.dtype].run % BLOCK == 0

    def blocks(self) -> Blocks | None:
        """The quantized blocks of `BLOCK` columns, or None where the tensor is stored as plain numbers, or in smaller blocks.

        No scheme keeps the codes of those.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        if not self.has_blocks:
            return None
        kind, rows, columns = BLOCKED[self.dtype], self._rows, self.shape[-1]
        codes: Codes = np.empty((rows, columns), np.int8) if kind.bits == 8 else np.empty((rows, columns), np.uint8)
        scale = np.empty((rows, columns // BLOCK), np.float32)
        minimum: NDArray[np.float32] | None = None
        for band, stored in self._bands():
            band_codes, band_scale, band_minimum = _unpacked(stored, kind)
            codes[band] = band_codes.reshape(len(stored), columns)
            scale[band] = np.repeat(band_scale, kind.run // BLOCK, axis=1).reshape(len(stored), -1)
            if band_minimum is not None:
                minimum = np.empty_like(scale) if minimum is None else minimum
                minimum[band] = np.repeat(band_minimum, kind.run // BLOCK, axis=1).reshape(len(stored), -1)
        return Blocks(codes=codes, scale=scale, minimum=minimum, bits=kind.bits)

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """Other tensors of the file that this one is made of: scales, say."""
        return ()

    def integers(self) -> NDArray[np.int64]:
        """The values of a tensor of integers, a new array of `shape`; for few of them.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        code = {"U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}[self.dtype]
        if not self.size:
            return np.empty(self.shape, np.int64)
        stored = np.concatenate([band.reshape(-1) for _, band in self._bands()])
        values: NDArray[np.int64] = stored.view(code).reshape(self.shape).astype(np.int64)
        return values

    def location(self) -> tuple[Path, int, int] | None:
        """File, offset and length in bytes of the values as plain little-endian `dtype` in `shape`; None if none lie there."""
        if self.dtype not in PLAIN or self.interleaved_heads is not None:
            return None
        return self.path, self.offset, self.nbytes

    def mapped(self) -> NDArray[np.uint8]:
        """The bytes in the file, [rows, bytes a row], none of them read yet.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        try:
            return np.memmap(self.path, np.uint8, "r", self.offset, (self._rows, self.nbytes // self._rows))
        except (OSError, ValueError) as error:
            raise BuildError(
                f"cannot read tensor {self.name} ({self.nbytes:,} bytes at {self.offset:,}) of {self.path}: {error}",
                "the file changed or went away during the build; fetch it again",
            ) from error

    @property
    def _rows(self) -> int:
        """Rows as stored; blocks run along the last axis, plain numbers need no more than the first."""
        if self.dtype in BLOCKED:
            return math.prod(self.shape[:-1])
        return self.shape[0] if self.shape else 1

    def _bands(self) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Groups of rows in their true order: which they are, and their bytes [rows, bytes a row]."""
        stored = self.mapped()
        order = None if self.interleaved_heads is None else half_order(self._rows, self.interleaved_heads)
        step = max(1, _BAND_BYTES // max(1, stored.shape[1]))
        for start in range(0, self._rows, step):
            band = slice(start, min(start + step, self._rows))
            yield band, np.asarray(stored[band] if order is None else stored[order[band]])


def half_order(rows: int, heads: int) -> NDArray[np.intp]:
    """For each row of a projection whose heads rotate first half against second half: where it lies when they are interleaved.

    A head of d rows keeps the rows (i, i + d/2) that rotate together side by side, at 2i and 2i + 1.
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(rows)


def _values(stored: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """The numbers of rows of bytes."""
    if dtype in PLAIN:
        return _plain(stored, dtype)
    kind = BLOCKED[dtype]
    codes, scale, minimum = _unpacked(stored, kind)
    values = codes.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # as in `_unpacked`
        values *= scale[..., None]
        if minimum is not None:
            values += minimum[..., None]
    return values.reshape(len(stored), -1)


def _unpacked(stored: NDArray[np.uint8], kind: BlockType) -> Unpacked:
    """Blocks of `kind`; scales that are no numbers are told of where it matters, not here."""
    with np.errstate(over="ignore", invalid="ignore"):
        return kind.unpack(stored.reshape(-1, kind.nbytes))


def _plain(stored: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (stored.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == FP8:
        return np.take(_FP8_VALUES, stored)
    return stored.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)
