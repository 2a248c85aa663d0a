"""FP8 weights for TensorRT: eight-bit floats (E4M3), a scale for every 128 columns of a row, dequantized for the product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...checkpoint import Fp8Tensor
from ...graph.export import GraphBundle
from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ...quantize.apply import Change
from ...quantize.policy import Precision
from ...quantize.smooth import linear_name

_BLOCK = 128
_LARGEST = np.float32(448)  # of E4M3
_LEAST_SCALE = np.float32(2**-14)  # float16 keeps all its digits from here on
_E4M3 = ir.DataType.FLOAT8E4M3FN
Codes = tuple[NDArray[Any], NDArray[np.float32]]  # [rows, columns] and scale [rows, columns / block]


def quantize_fp8(bundle: GraphBundle, policy: Precision) -> list[Change]:
    """Let every linear that `policy` does not keep as floats, and every stack of experts, read FP8 weights; in place.

    Blocks of 128 by 128 that the checkpoint itself has keep their codes.
    """
    rewriter, changes = Rewriter(bundle.model), []
    for node in rewriter.find("Linear"):
        weight = node.inputs[1]
        assert weight is not None and weight.name is not None
        if policy.scheme(linear_name(node)) == "float":
            continue
        source = bundle.sources[weight.name]
        change = _change(linear_name(node), source.shape)
        node.replace_input_with(1, _read(rewriter, node, change, [source], stacked=False))
        changes.append(change)
    for node in rewriter.find("Experts"):
        for index in (3, 4):
            weight = node.inputs[index]
            assert weight is not None and weight.name is not None
            stack = bundle.stacks[weight.name]
            change = _change(weight.name, stack.shape)
            node.replace_input_with(index, _read(rewriter, node, change, stack.experts, stacked=True))
            changes.append(change)
    return changes


def _change(name: str, shape: tuple[int, ...]) -> Change:
    size = int(np.prod(shape))
    return Change(name, "fp8", bytes_before=4 * size, bytes_after=size + 2 * size // _block(shape[-1]))


def _read(rewriter: Rewriter, node: ir.Node, change: Change, sources: Any, *, stacked: bool) -> ir.Value:
    """DequantizeLinear of the codes and scales of `sources`."""
    rows, columns = sources[0].shape
    block, lead = _block(columns), (len(sources),) if stacked else ()
    error = _Error(change, len(sources))

    def codes(i: int) -> NDArray[Any]:
        weight, (values, scale) = sources[i].float32(), _codes(sources[i])
        error.add(i, weight, values.astype(np.float32).reshape(rows, -1, block) * scale[..., None])
        return values

    def part(suffix: str, dtype: ir.DataType, width: int, make: Callable[[int], NDArray[Any]]) -> ir.Value:
        name, shape = f"{change.name}.{suffix}", (*lead, rows, width)
        if stacked:
            return rewriter.stacked_initializer(name, make, dtype, shape)
        return rewriter.initializer(name, lambda: make(0), dtype, shape)

    inputs = (
        part("fp8", _E4M3, columns, codes),
        part("scale", ir.DataType.FLOAT, columns // block, lambda i: _codes(sources[i])[1]),
    )
    return rewriter.insert(
        node, "DequantizeLinear", *inputs, name=f"{change.name}.dequantized", axis=len(lead) + 1, block_size=block
    )[0]


class _Error:
    """The root mean square of the difference over that of the weights, of all parts so far."""

    def __init__(self, change: Change, parts: int) -> None:
        self._change = change
        self._sums = np.zeros((parts, 2))

    def add(self, i: int, weight: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        difference = values.reshape(weight.shape) - weight
        self._sums[i] = np.square(difference).sum(dtype=np.float64), np.square(weight).sum(dtype=np.float64)
        difference_sum, size = self._sums.sum(0)
        self._change.error = float(np.sqrt(difference_sum / max(size, 1e-30)))


def _block(columns: int) -> int:
    """Columns that share a scale: the whole row where 128 do not divide it."""
    return _BLOCK if columns % _BLOCK == 0 else columns


def _codes(source: WeightSource) -> Codes:
    """Codes and float32 scales that float16 holds exactly, or nearly so where the checkpoint's own blocks are carried."""
    block = _block(source.shape[-1])
    if block == _BLOCK and (carried := _carried(source)) is not None:
        return carried
    split = source.float32().reshape(source.shape[0], -1, block)
    scale = np.maximum(np.abs(split).max(-1) / _LARGEST, _LEAST_SCALE).astype(np.float16)
    scale = np.where(
        scale.astype(np.float32) * _LARGEST < np.abs(split).max(-1), np.nextafter(scale, np.float16(np.inf)), scale
    )
    wide = scale.astype(np.float32)
    return (split / wide[..., None]).astype(ml_dtypes.float8_e4m3fn).reshape(source.shape), wide


def _carried(source: WeightSource) -> Codes | None:
    """The codes of a checkpoint in 128 by 128 blocks, unless a scale is too small for float16."""
    codes, scales = [], []
    for tensor in source.parts:
        if not isinstance(tensor, Fp8Tensor) or tensor.block[1] != _BLOCK:
            return None
        scale = np.repeat(tensor.scale.float32(), tensor.block[0], axis=0)[: tensor.shape[0]]
        if scale.min() < _LEAST_SCALE:
            return None
        codes.append(tensor.codes.float32().astype(ml_dtypes.float8_e4m3fn))
        scales.append(scale)
    return np.concatenate(codes), np.concatenate(scales)
