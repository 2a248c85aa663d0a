"""Eight-bit floats (E4M3), a scale for every 128 columns of a row, which a standard op turns into numbers for the product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...checkpoint import Fp8Tensor
from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ..statistics import Array, Statistic
from .scheme import Coded, Part

_BLOCK = 128
_LARGEST = np.float32(448)  # of E4M3
_LEAST_SCALE = np.float32(2**-14)  # float16 keeps all its digits from here on


@dataclass(frozen=True)
class Fp8Codes:
    """value = scale * codes, in blocks of `columns / len(scale[0])` columns; codes E4M3 [rows, columns]."""

    codes: NDArray[Any]
    scale: NDArray[np.float32]  # [rows, columns / block]; float16 holds them exactly, or nearly so if they were carried
    note: str = ""

    def values(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        codes, scale = self.codes[rows], self.scale[rows]
        values: NDArray[np.float32] = codes.astype(np.float32).reshape(*scale.shape, -1) * scale[..., None]
        return values.reshape(codes.shape)


def quantize_fp8(weight: NDArray[np.float32]) -> Fp8Codes:
    """Round to nearest in blocks, with scales that are float16 numbers and large enough that nothing overflows."""
    split = weight.reshape(len(weight), -1, _block(weight.shape[1]))
    scale = np.maximum(np.abs(split).max(-1) / _LARGEST, _LEAST_SCALE).astype(np.float16)
    scale = np.where(
        scale.astype(np.float32) * _LARGEST < np.abs(split).max(-1), np.nextafter(scale, np.float16(np.inf)), scale
    )
    wide = scale.astype(np.float32)
    return Fp8Codes((split / wide[..., None]).astype(ml_dtypes.float8_e4m3fn).reshape(weight.shape), wide)


def carry_fp8(source: WeightSource) -> Fp8Codes | None:
    """The codes of a checkpoint in 128 by 128 blocks, or None: it has others, or a scale too small for float16."""
    codes, scales = [], []
    for tensor in source.parts:
        if not isinstance(tensor, Fp8Tensor) or tensor.block[1] != _BLOCK or tensor.shape[1] % _BLOCK:
            return None
        scale = np.repeat(tensor.scale.float32(), tensor.block[0], axis=0)[: tensor.shape[0]]
        if scale.min() < _LEAST_SCALE:
            return None
        codes.append(tensor.codes.float32().astype(ml_dtypes.float8_e4m3fn))
        scales.append(scale)
    return Fp8Codes(np.concatenate(codes), np.concatenate(scales))


@dataclass(frozen=True)
class Fp8:
    """FP8 weights; arithmetic stays the target's own."""

    name: str = "fp8"
    needs: frozenset[Statistic] = frozenset()
    unit: int = 1

    @property
    def experts(self) -> Self:
        return self

    def bytes(self, rows: int, columns: int, scale_bytes: int = 4) -> int:
        return rows * columns + scale_bytes * rows * columns // _block(columns)

    def parts(self, rows: int, columns: int) -> Sequence[Part[Fp8Codes]]:
        return (
            Part("fp8", ir.DataType.FLOAT8E4M3FN, (rows, columns), lambda made: made.codes),
            Part("scale", ir.DataType.FLOAT, (rows, columns // _block(columns)), lambda made: made.scale),
        )

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> Fp8Codes:
        return carry_fp8(source) or quantize_fp8(source.float32())

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        first = len(node.inputs) - len(weights)  # the weights are a node's last inputs
        for index, weight in enumerate(weights, start=first):
            read = node.inputs[index]
            assert read is not None and read.shape is not None
            *lead, columns = (int(n) for n in read.shape.numpy())
            (numbers,) = rewriter.insert(
                node, "DequantizeLinear", *weight.parts, name=f"{weight.name}.dequantized",
                axis=len(lead), block_size=_block(columns),
            )  # fmt: skip
            node.replace_input_with(index, numbers)


def _block(columns: int) -> int:
    """Columns that share a scale: the whole row where 128 do not divide it."""
    return _BLOCK if columns % _BLOCK == 0 else columns
