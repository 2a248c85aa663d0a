"""Four- or eight-bit integers in blocks of 32 columns, each with a scale and an offset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...checkpoint import Blocks as CheckpointBlocks
from ...graph.body import DOMAIN
from ...graph.rewrite import Rewriter
from ...graph.weights import Source, WeightSource
from ..statistics import Array, Statistic
from .scheme import TINY, Coded, Part, bands

BLOCK = 32  # columns that share a scale
WHOLE_ZEROS = "whole_zeros"  # noted with offsets that are surely whole numbers of steps: `quantize_blocks` makes only such
CARRIED, ROUNDED = "checkpoint blocks carried exactly", "the rest rounded to nearest"
SYMMETRIC = "symmetric"  # noted with offsets that are surely those of a middle code of zero, or surely not


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


@dataclass(frozen=True)
class ChosenPart:
    """A tensor of the checkpoint, and codes that another pass chose for it."""

    source: Source
    codes: Callable[[], BlockCodes]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def float32(self) -> NDArray[np.float32]:
        return self.source.float32()

    def blocks(self) -> None:
        return None


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
        scale = np.maximum(np.abs(split).max(axis=2), TINY) / np.float32(2 ** (bits - 1) - 1)
    else:
        low, high = np.minimum(split.min(axis=2), 0), np.maximum(split.max(axis=2), 0)
        scale = np.maximum(high - low, TINY) / np.float32(2**bits - 1)
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(split / scale[..., None]) + zero[..., None], 0, 2**bits - 1)
    offset = (-zero * scale).astype(np.float32)
    return codes.astype(np.uint8).reshape(weight.shape), scale.astype(np.float32), offset


def carry_blocks(part: CheckpointBlocks, bits: int) -> BlockCodes | None:
    """The checkpoint's own blocks in `bits` bits, or None where they do not fit.

    Blocks carried in as many bits as they have keep their codes and scales: nothing is lost. In more bits they are put on a
    grid that is finer by 2^(the bits that are more) and has a whole-number zero point: a value moves by at most half of its
    step, a 32nd of four-bit blocks' own step in eight bits. Blocks whose zero lies outside of that grid are rounded anew.
    """
    if part.bits > bits or part.block != BLOCK:
        return None
    codes, scale, offset = part.unsigned(), part.scale, part.offset()
    if part.bits == bits:
        return BlockCodes(codes, scale, offset, note=CARRIED)
    finer = 2 ** (bits - part.bits)
    fine = (scale / np.float32(finer)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(fine != 0, np.rint(-offset / fine), 0)
    outside = ~((zero >= 0) & (zero < 2**bits)) | ((fine == 0) & (offset != 0))
    zero[outside] = 0
    codes, offset_on_grid = codes * np.uint8(finer), (-zero * fine).astype(np.float32)
    note = f"checkpoint blocks on a {finer}x finer grid"
    if outside.any():
        values = part.unsigned().reshape(*scale.shape, BLOCK)[outside] * scale[outside][:, None] + offset[outside][:, None]
        anew = quantize_blocks(values.astype(np.float32), bits)
        codes.reshape(*scale.shape, BLOCK)[outside] = anew.codes
        fine[outside], offset_on_grid[outside] = anew.scale[:, 0], anew.offset[:, 0]
        note += f", {outside.sum():,} of {outside.size:,} rounded anew"
    return BlockCodes(codes, fine, offset_on_grid, note=note)


def has_plain_zeros(codes: BlockCodes, bits: int, *, symmetric: bool) -> bool:
    """Whether every block's zero is a whole code, and with `symmetric` the middle one."""
    if np.any((codes.scale == 0) & (codes.offset != 0)):
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        zeros = np.where(codes.scale != 0, -codes.offset / codes.scale, 0)
    whole = np.rint(zeros)
    if symmetric:
        return bool(np.all((zeros == 1 << (bits - 1)) | (codes.scale == 0)))
    return bool(np.abs(zeros - whole).max() < 1e-3 and whole.min() >= 0 and whole.max() < 2**bits)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Linears in blocks; those that the checkpoint itself holds are carried over wherever they fit.

    `symmetric`: the middle code stands for zero, for a target that takes no zero points.
    """

    bits: int
    symmetric: bool = False
    needs: frozenset[Statistic] = frozenset()
    unit: int = BLOCK

    @property
    def name(self) -> str:
        return f"blocks{self.bits}"

    @property
    def experts(self) -> ExpertBlocks:
        return ExpertBlocks(bits=self.bits, symmetric=self.symmetric)

    def bytes(self, rows: int, columns: int, scale_bytes: int = 4) -> int:
        blocks = columns // BLOCK
        zeros = 0 if self.symmetric else -(-blocks * self.bits // 8)  # each row of them fills whole bytes
        return rows * (columns * self.bits // 8 + scale_bytes * blocks + zeros)

    def parts(self, rows: int, columns: int) -> Sequence[Part[BlockCodes]]:
        return _parts(rows, columns)

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> BlockCodes:
        return _carried_or_rounded(source, self.bits, symmetric=self.symmetric)

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        (weight,) = weights
        offset = weight.parts[2]
        offset.meta[WHOLE_ZEROS] = not weight.has_blocks  # of our own blocks, known without making them
        if not weight.has_blocks:
            offset.meta[SYMMETRIC] = self.symmetric
        y = rewriter.insert(
            node, "LinearBlocks", node.inputs[0], *weight.parts,
            name=f"{weight.name}.product", domain=DOMAIN, bits=self.bits, block_size=BLOCK,
        )  # fmt: skip
        rewriter.replace(node, y)


@dataclass(frozen=True, kw_only=True)
class ExpertBlocks(Blocks):
    """Stacks of experts in blocks; a checkpoint's own are carried where their zeros are what targets want of experts."""

    @property
    def experts(self) -> ExpertBlocks:
        return self

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> BlockCodes:
        return _plain(source, self.bits, symmetric=self.symmetric)

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        gate_up, down = weights
        y = rewriter.insert(
            node, "ExpertsBlocks", *node.inputs[:3], *gate_up.parts, *down.parts,
            name=f"{gate_up.name}.mixture", domain=DOMAIN, bits=self.bits, block_size=BLOCK,
        )  # fmt: skip
        rewriter.replace(node, y)


@dataclass(frozen=True)
class EmbeddingBlocks:
    """Tables that are read by Gather: eight-bit blocks, symmetric, as GGUF's Q8_0."""

    name: str = "embedding blocks8"
    needs: frozenset[Statistic] = frozenset()
    unit: int = BLOCK
    experts: None = None

    def bytes(self, rows: int, columns: int, scale_bytes: int = 4) -> int:
        return rows * (columns + scale_bytes * columns // BLOCK)

    def parts(self, rows: int, columns: int) -> Sequence[Part[BlockCodes]]:
        return _parts(rows, columns)[:2]

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> BlockCodes:
        return _plain(source, 8, symmetric=True)

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        (table,) = weights
        name = f"{table.name.removesuffix('.table')}.rows"
        y = rewriter.insert(node, "EmbeddingBlocks", *table.parts, node.inputs[1], name=name, domain=DOMAIN)
        rewriter.replace(node, y)


def _parts(rows: int, columns: int) -> Sequence[Part[BlockCodes]]:
    blocks = (rows, columns // BLOCK)
    return (
        Part("codes", ir.DataType.UINT8, (rows, columns), lambda made: made.codes),
        Part("scale", ir.DataType.FLOAT, blocks, lambda made: made.scale),
        Part("offset", ir.DataType.FLOAT, blocks, lambda made: made.offset),
    )


def _carried_or_rounded(source: WeightSource, bits: int, *, symmetric: bool, plain: bool = False) -> BlockCodes:
    """Part by part the codes that were chosen, or the checkpoint's own blocks where they fit, else new ones.

    A file may hold values in more bits than keys.

    Args:
        plain: carry only blocks whose zeros are what `has_plain_zeros` says.
    """
    made = []
    for part in source.parts:
        if isinstance(part, ChosenPart):
            made.append(part.codes())
            continue
        carried = carried_codes(part, bits, symmetric=symmetric, plain=plain)
        made.append(carried or quantize_blocks(part.float32(), bits, symmetric=symmetric))
    if len(made) == 1:
        return made[0]
    notes = list(dict.fromkeys(codes.note or ROUNDED for codes in made))
    note = "" if notes == [ROUNDED] else "; ".join(notes)
    codes, scale, offset = (np.concatenate([getattr(m, name) for m in made]) for name in ("codes", "scale", "offset"))
    return BlockCodes(codes, scale, offset, note=note)


def carried_codes(part: Source, bits: int, *, symmetric: bool, plain: bool) -> BlockCodes | None:
    """The checkpoint's own blocks of a tensor where they fit; for the arguments see `_carried_or_rounded`."""
    own = part.blocks()
    carried = None if own is None else carry_blocks(own, bits)
    if carried is not None and plain and not has_plain_zeros(carried, bits, symmetric=symmetric):
        return None
    return carried


def _plain(source: WeightSource, bits: int, *, symmetric: bool) -> BlockCodes:
    """The checkpoint's own blocks where their zeros are plain, else new ones."""
    return _carried_or_rounded(source, bits, symmetric=symmetric, plain=True)
