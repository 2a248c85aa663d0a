"""Four- or eight-bit integers in blocks of 32 columns, each with a scale and an offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...checkpoint import Blocks as CheckpointBlocks
from ...graph.body import DOMAIN
from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ..statistics import Array, Statistic
from .scheme import TINY, Coded, Part, bands

BLOCK = 32  # columns that share a scale
WHOLE_ZEROS = "whole_zeros"  # noted with offsets that are surely whole numbers of steps: `quantize_blocks` makes only such
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


def carry_blocks(parts: Sequence[CheckpointBlocks], bits: int) -> BlockCodes | None:
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


def has_plain_zeros(codes: BlockCodes, bits: int, *, symmetric: bool) -> bool:
    """Whether every block's zero is a whole code, and with `symmetric` the middle one."""
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
        return _carried(source, self.bits) or quantize_blocks(source.float32(), self.bits, symmetric=self.symmetric)

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


def _carried(source: WeightSource, bits: int) -> BlockCodes | None:
    own = source.blocks()
    return carry_blocks(own, bits) if own else None


def _plain(source: WeightSource, bits: int, *, symmetric: bool) -> BlockCodes:
    """The checkpoint's own blocks where their zeros are plain, else new ones."""
    carried = _carried(source, bits)
    if carried is not None and has_plain_zeros(carried, bits, symmetric=symmetric):
        return carried
    return quantize_blocks(source.float32(), bits, symmetric=symmetric)
