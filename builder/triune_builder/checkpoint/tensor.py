"""One tensor in a file: where its bytes lie and how they become numbers. Knows no model and no file format's header."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError

BLOCK = 32  # elements of a row that share a scale in every block format read here
_BAND_BYTES = 1 << 21  # stored bytes decoded at a time: keeps the working copies small beside the result

FP8 = "F8_E4M3"
PLAIN = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, FP8: 1}  # dtype -> bytes an element
BLOCKED = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}  # dtype -> bytes a block
SUPER = {"Q6_K": 210}  # dtype -> bytes a block of SUPER_BLOCK; read as numbers only, see `Tensor.blocks`
SUPER_BLOCK = 256

_FP8_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # of each code
Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A matrix as quantized blocks: value = scale * code + minimum, with `minimum` None standing for zero.

    Q8_0: int8 codes, no minimum. Q4_1: codes 0..15 and its own minimum. Q4_0 (value = scale * (code - 8)):
    codes 0..15 and minimum = -8 * scale, which float32 holds exactly.
    """

    codes: Codes  # [rows, columns]; int8 for eight bits, uint8 (0..15) for four
    scale: NDArray[np.float32]  # [rows, columns / block]
    minimum: NDArray[np.float32] | None  # [rows, columns / block]

    @property
    def bits(self) -> int:
        return 8 if self.codes.dtype == np.int8 else 4

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


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that lies in a file. Reading maps just its bytes and lets go of them again; nothing is kept."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of PLAIN, BLOCKED or SUPER
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

    def blocks(self) -> Blocks | None:
        """The quantized blocks as [rows, columns], or None where the tensor is stored as plain numbers, or in blocks of blocks.

        Those are few in the files that are read, such as the head of a Q4_0 file, and no scheme keeps their codes.

        Raises:
            BuildError: the file is shorter than it was, or gone.
        """
        if self.dtype not in BLOCKED:
            return None
        rows, columns = self._rows, self.shape[-1]
        signed = self.dtype == "Q8_0"
        codes: Codes = np.empty((rows, columns), np.int8) if signed else np.empty((rows, columns), np.uint8)
        scale = np.empty((rows, columns // BLOCK), np.float32)
        minimum = None if signed else np.empty_like(scale)
        for band, stored in self._bands():
            band_codes, scale[band], band_minimum = _unpack(stored, self.dtype)
            codes[band] = band_codes.reshape(len(stored), columns)
            if minimum is not None and band_minimum is not None:
                minimum[band] = band_minimum
        return Blocks(codes=codes, scale=scale, minimum=minimum)

    def location(self) -> tuple[Path, int, int] | None:
        """File, offset and length in bytes of the values as plain little-endian `dtype` in `shape`; None if none lie there."""
        if self.dtype not in PLAIN or self.interleaved_heads is not None:
            return None
        return self.path, self.offset, self.nbytes

    @property
    def _rows(self) -> int:
        """Rows as stored; blocks run along the last axis, plain numbers need no more than the first."""
        if self.dtype not in PLAIN:
            return math.prod(self.shape[:-1])
        return self.shape[0] if self.shape else 1

    def _bands(self) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Groups of rows in their true order: which they are, and their bytes [rows, bytes a row]."""
        try:
            stored = np.memmap(self.path, np.uint8, "r", self.offset, (self._rows, self.nbytes // self._rows))
        except (OSError, ValueError) as error:
            raise BuildError(
                f"cannot read tensor {self.name} ({self.nbytes:,} bytes at {self.offset:,}) of {self.path}: {error}",
                "the file changed or went away during the build; fetch it again",
            ) from error
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
    return _six_bits(stored) if dtype == "Q6_K" else _block_values(stored, dtype)


def _plain(stored: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (stored.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == FP8:
        return np.take(_FP8_VALUES, stored)
    return stored.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)


def _unpack(stored: NDArray[np.uint8], dtype: str) -> tuple[Codes, NDArray[np.float32], NDArray[np.float32] | None]:
    """Codes [rows, blocks, BLOCK], scale and minimum [rows, blocks] of rows of blocks."""
    split = stored.reshape(len(stored), -1, BLOCKED[dtype])
    scale = _half(split[..., :2])
    if dtype == "Q8_0":
        return split[..., 2:].view(np.int8), scale, None
    minimum = np.float32(-8) * scale if dtype == "Q4_0" else _half(split[..., 2:4])
    packed = split[..., -BLOCK // 2 :]  # low nibbles are the first half of the block, high nibbles the second
    codes = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return codes, scale, minimum


def _half(pair: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two bytes [..., 2] as a float16 [...]."""
    return pair.copy().view("<f2")[..., 0].astype(np.float32)


def _block_values(stored: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    codes, scale, minimum = _unpack(stored, dtype)
    values = codes.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # of scales that are no numbers: they are told of where it matters
        values *= scale[..., None]
        if minimum is not None:
            values += minimum[..., None]
    return values.reshape(len(stored), -1)


def _six_bits(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of Q6_K: value = scale of 256 * scale of 16 * (code - 32).

    A block is 128 bytes of low nibbles, 64 of upper pairs of bits, 16 scales (int8), a float16. Each half of 128 values has
    four runs of 32: a byte's nibbles are of runs 0 and 2 or 1 and 3, a byte of upper bits has those of all four.
    """
    split = stored.reshape(len(stored), -1, SUPER["Q6_K"])
    lead = split.shape[:2]
    low = split[..., :128].reshape(*lead, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & np.uint8(15)
    high = split[..., 128:192].reshape(*lead, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & np.uint8(3)
    codes = (low.reshape(*lead, 2, 4, 32) | high << np.uint8(4)).astype(np.int8) - np.int8(32)
    scale = _half(split[..., 208:])[..., None] * split[..., 192:208].view(np.int8).astype(np.float32)
    values: NDArray[np.float32] = codes.reshape(*lead, 16, 16).astype(np.float32) * scale[..., None]
    return values.reshape(len(stored), -1)
