"""Arrays in, codes and scales out. Pure NumPy: no graph, no file, no target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Blocks

BLOCK = 32  # columns that share a scale
WHOLE_ZEROS = "whole_zeros"  # noted with offsets that are surely whole numbers of steps: `quantize_blocks` makes only such
SYMMETRIC = "symmetric"  # noted with offsets that are surely those of a middle code of zero, or surely not
_BAND = 4096  # rows
_TINY = np.float32(1e-30)


@dataclass(frozen=True)
class RowCodes:
    """value = scale[row] * codes[row, column]; codes int8 in [-127, 127]."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def values(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        return np.multiply(self.codes[rows], self.scale[rows, None], dtype=np.float32)


@dataclass(frozen=True)
class BlockCodes:
    """value = scale * codes + offset, in blocks of `BLOCK` columns; codes uint8 [rows, columns], 0 <= code < 2^bits."""

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]  # [rows, columns / BLOCK]
    offset: NDArray[np.float32]  # [rows, columns / BLOCK]
    note: str = ""

    def values(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        scale, offset = self.scale[rows, :, None], self.offset[rows, :, None]
        split = self.codes[rows].reshape(*scale.shape[:2], -1).astype(np.float32)
        values: NDArray[np.float32] = split * scale + offset
        return values.reshape(len(scale), -1)


def bands(rows: int) -> Iterator[slice]:
    """Slices of at most `_BAND` rows: a vocabulary's table is worked through without several copies of it."""
    return (slice(start, min(start + _BAND, rows)) for start in range(0, rows, _BAND))


def quantize_rows(weight: NDArray[np.float32]) -> RowCodes:
    """Symmetric int8, one scale a row (round to nearest)."""
    codes, scale = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for band in bands(len(weight)):
        scale[band] = np.maximum(np.abs(weight[band]).max(axis=1), _TINY) / np.float32(127)
        codes[band] = np.rint(weight[band] / scale[band, None])
    return RowCodes(codes, scale)


def quantize_blocks(weight: NDArray[np.float32], bits: int, *, symmetric: bool = False) -> BlockCodes:
    """Round to nearest in blocks. Asymmetric: a whole-number zero point a block; symmetric: the middle code is zero."""
    rows, columns = weight.shape
    codes = np.empty(weight.shape, np.uint8)
    scale, offset = (np.empty((rows, columns // BLOCK), np.float32) for _ in range(2))
    for band in bands(rows):
        codes[band], scale[band], offset[band] = _quantize_band(weight[band], bits, symmetric)
    return BlockCodes(codes, scale, offset)


def _quantize_band(
    weight: NDArray[np.float32], bits: int, symmetric: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    split = weight.reshape(len(weight), -1, BLOCK)
    if symmetric:
        zero = np.full(split.shape[:2], 2.0 ** (bits - 1), np.float32)
        scale = np.maximum(np.abs(split).max(axis=2), _TINY) / np.float32(2 ** (bits - 1) - 1)
    else:
        low, high = np.minimum(split.min(axis=2), 0), np.maximum(split.max(axis=2), 0)
        scale = np.maximum(high - low, _TINY) / np.float32(2**bits - 1)
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(split / scale[..., None]) + zero[..., None], 0, 2**bits - 1)
    offset = (-zero * scale).astype(np.float32)
    return codes.astype(np.uint8).reshape(weight.shape), scale.astype(np.float32), offset


def carry_blocks(parts: Sequence[Blocks], bits: int) -> BlockCodes | None:
    """The checkpoint's own blocks in `bits` bits, or None where they do not fit.

    Four-bit blocks carried in four bits, and eight-bit blocks in eight, keep their codes and scales: nothing is lost.
    Four-bit blocks in eight bits are put on a grid sixteen times as fine with a whole-number zero point, so a value
    moves by at most 1/32 of its block's own step.
    """
    if any(part.bits > bits or part.block != BLOCK for part in parts):
        return None
    codes = np.concatenate([p.unsigned() for p in parts])
    scale = np.concatenate([p.scale for p in parts])
    offset = np.concatenate([p.offset() for p in parts])
    if all(part.bits == bits for part in parts):
        return BlockCodes(codes, scale, offset, note="checkpoint blocks carried exactly")
    if any(part.bits != 4 for part in parts):
        return None
    fine = (scale / 16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(fine != 0, np.rint(-offset / fine), 0)
    if zero.min() < 0 or zero.max() > 255:
        return None
    return BlockCodes(
        codes * np.uint8(16), fine, (-zero * fine).astype(np.float32), note="checkpoint blocks on a 16x finer grid"
    )
