"""Float experts -> experts in blocks, one expert in memory at a time. Knows no target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import BuildError
from ..graph.functions import DOMAIN
from ..graph.rewrite import Rewriter
from ..graph.weights import StackSource
from .change import Change
from .policy import Precision, Scheme
from .schemes import BLOCK, BlockCodes, carry_blocks, quantize_blocks

_BITS: dict[Scheme, int] = {"blocks4": 4, "blocks4_symmetric": 4, "blocks8": 8, "blocks8_symmetric": 8, "w8a8": 8}


def quantize_experts(rewriter: Rewriter, stacks: Mapping[str, StackSource], precision: Precision) -> list[Change]:
    """Put the weights of every Experts node in blocks, where `precision` does not keep them as floats.

    Under w8a8 experts take eight-bit blocks: an expert sees few rows, for which blocks are as fast and more exact.

    Raises:
        BuildError: columns that blocks do not divide.
    """
    changes = []
    for node in rewriter.find("Experts"):
        x, weights, indices, gate_up, down = node.inputs
        assert gate_up is not None and gate_up.name is not None and down is not None and down.name is not None
        scheme = precision.scheme(gate_up.name)
        if scheme == "float":
            continue
        bits = _BITS[scheme]
        symmetric = scheme.endswith("symmetric")
        made = [_Stack(stacks[name], bits, symmetric) for name in (gate_up.name, down.name)]
        inputs = [value for stack in made for value in stack.initializers(rewriter)]
        y = rewriter.insert(
            node, "ExpertsBlocks", x, weights, indices, *inputs,
            name=f"{gate_up.name}.mixture", domain=DOMAIN, bits=bits, block_size=BLOCK,
        )  # fmt: skip
        rewriter.replace(node, y)
        changes += [stack.change for stack in made]
    return changes


class _Stack:
    """One stack of weights in blocks. An expert is quantized anew for each of its three parts: none is kept."""

    def __init__(self, source: StackSource, bits: int, symmetric: bool) -> None:
        count, rows, columns = source.shape
        if columns % BLOCK:
            raise BuildError(
                f"the experts of {source.name} have {columns} columns, which blocks of {BLOCK} do not divide",
                "build with PRECISION=fp32",
            )
        size = count * rows * columns
        self._source, self._bits, self._symmetric = source, bits, symmetric
        self.change = Change(
            source.name, f"blocks{bits}", bytes_before=4 * size, bytes_after=size * bits // 8 + 4 * size // BLOCK
        )
        self._difference = self._size = 0.0

    def initializers(self, rewriter: Rewriter) -> list[ir.Value]:
        """Codes, scale and offset."""
        name, (count, rows, columns) = self._source.name, self._source.shape
        blocks = (count, rows, columns // BLOCK)

        def part(suffix: str, dtype: ir.DataType, shape: tuple[int, ...], make: Callable[[int], NDArray[Any]]) -> ir.Value:
            return rewriter.stacked_initializer(f"{name}.{suffix}", make, dtype, shape)

        return [
            part("codes", ir.DataType.UINT8, (count, rows, columns), self._codes),
            part("scale", ir.DataType.FLOAT, blocks, lambda i: self._expert(i)[1].scale),
            part("offset", ir.DataType.FLOAT, blocks, lambda i: self._expert(i)[1].offset),
        ]

    def _codes(self, i: int) -> NDArray[np.uint8]:
        weight, result = self._expert(i)
        if i == 0:
            self._difference = self._size = 0.0
        self._difference += float(np.square(result.values() - weight).sum(dtype=np.float64))
        self._size += float(np.square(weight).sum(dtype=np.float64))
        self.change.error = float(np.sqrt(self._difference / max(self._size, 1e-30)))
        self.change.note = result.note
        return result.codes

    def _expert(self, i: int) -> tuple[NDArray[np.float32], BlockCodes]:
        """The weight, and its blocks: the checkpoint's own where their zero points are whole numbers, as targets want them."""
        expert = self._source.experts[i]
        weight, own = expert.float32(), expert.blocks()
        carried = carry_blocks(own, self._bits) if own else None
        if carried is not None and _fits(carried, self._bits, self._symmetric):
            return weight, carried
        return weight, quantize_blocks(weight, self._bits, symmetric=self._symmetric)


def _fits(codes: BlockCodes, bits: int, symmetric: bool) -> bool:
    """Whether every block's zero is a whole code, and with `symmetric` the middle one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        zeros = np.where(codes.scale != 0, -codes.offset / codes.scale, 0)
    whole = np.rint(zeros)
    if symmetric:
        return bool(np.all((zeros == 1 << (bits - 1)) | (codes.scale == 0)))
    return bool(np.abs(zeros - whole).max() < 1e-3 and whole.min() >= 0 and whole.max() < 2**bits)
