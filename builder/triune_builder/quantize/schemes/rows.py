"""Eight-bit integers, a scale for each row of the weight, with activations in eight bits, a scale for each of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.body import DOMAIN
from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ..statistics import MAXIMA, Array, Statistic
from .blocks import ExpertBlocks
from .scheme import TINY, Coded, Part, bands


@dataclass(frozen=True)
class RowCodes:
    """value = scale[row] * codes[row, column]; codes int8 in [-127, 127]."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    note: str = ""

    def values(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        return np.multiply(self.codes[rows], self.scale[rows, None], dtype=np.float32)


def quantize_rows(weight: NDArray[np.float32]) -> RowCodes:
    """Symmetric int8, one scale a row (round to nearest)."""
    codes, scale = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for band in bands(len(weight)):
        scale[band] = np.maximum(np.abs(weight[band]).max(axis=1), TINY) / np.float32(127)
        codes[band] = np.rint(weight[band] / scale[band, None])
    return RowCodes(codes, scale)


@dataclass(frozen=True)
class Rows:
    """w8a8. Its activations are rounded, so their range is first moved into the weights: see `smooth`."""

    name: str = "w8a8"
    needs: frozenset[Statistic] = frozenset({MAXIMA})
    unit: int = 1

    @property
    def experts(self) -> ExpertBlocks:
        """Eight-bit blocks: an expert sees few rows, for which blocks are as fast and more exact."""
        return ExpertBlocks(bits=8)

    def bytes(self, rows: int, columns: int, scale_bytes: int = 4) -> int:
        return rows * columns + scale_bytes * rows

    def parts(self, rows: int, columns: int) -> Sequence[Part[RowCodes]]:
        return (
            Part("codes", ir.DataType.INT8, (columns, rows), lambda made: np.ascontiguousarray(made.codes.T)),
            Part("scale", ir.DataType.FLOAT, (rows,), lambda made: made.scale),
        )

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> RowCodes:
        return quantize_rows(source.float32())

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        (weight,) = weights
        rounded = _rounded(rewriter, node)
        y = rewriter.insert(node, "LinearW8A8", *rounded, *weight.parts, name=f"{weight.name}.product", domain=DOMAIN)
        rewriter.replace(node, y)


def _rounded(rewriter: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """The codes and scales of the node's input; linears that read the same input share them."""
    x = node.inputs[0]
    assert x is not None
    for use in x.uses():
        if use.node.op_type == "QuantizeRows" and use.node.domain == DOMAIN:
            return use.node.outputs
    return rewriter.insert(node, "QuantizeRows", x, name=f"{x.name}.codes", outputs=2, domain=DOMAIN)
