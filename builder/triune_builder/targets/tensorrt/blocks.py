"""Weights in blocks for TensorRT: signed codes around zero, dequantized by a standard op that it fuses into the product."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.rewrite import Place, Rewriter, constant_array, constant_shape
from ..packing import is_symmetric, offset_rest

INTS = {4: ir.DataType.INT4, 8: ir.DataType.INT8}


def lower_blocks(rewriter: Rewriter) -> None:
    """LinearBlocks -> DequantizeLinear and a product."""
    for node in rewriter.find("LinearBlocks"):
        _linear_blocks(rewriter, node)


def _linear_blocks(rewriter: Rewriter, node: ir.Node) -> None:
    """Codes around zero with a scale a block; what that leaves of the blocks' offsets gets a small product of its own.

    With value = scale * (code - middle) + rest, the rest is constant in a block, so its share of the product is the block sums
    of x times `rest`. TensorRT takes no zero points of four bits, and so a checkpoint's own blocks stay exact.
    """
    x, codes, scale, offset = node.inputs
    assert codes is not None and codes.name is not None and scale is not None and offset is not None
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    rows, columns = constant_shape(codes)
    name, place = codes.name.removesuffix(".codes"), Place(rewriter, node)
    signed = rewriter.initializer(
        f"{name}.int{bits}", lambda: around_zero(constant_array(codes), bits), INTS[bits], (rows, columns)
    )
    weight = place.op("DequantizeLinear", signed, scale, part="weight", axis=1, block_size=block)
    y = place.op("MatMul", x, place.op("Transpose", weight, part="transposed", perm=[1, 0]), part="matmul")
    if not is_symmetric(scale, offset, bits):
        rest = rewriter.initializer(
            f"{name}.rest", lambda: offset_rest(scale, offset, bits), ir.DataType.FLOAT, (columns // block, rows)
        )
        shape = rewriter.constant(f"blocks.{columns}", np.array([0, 0, columns // block, block], np.int64))
        axis = rewriter.constant("last.axis", np.array([-1], np.int64))
        sums = place.op("ReduceSum", place.op("Reshape", x, shape, part="split"), axis, part="sums", keepdims=0)
        y = place.op("Add", y, place.op("MatMul", sums, rest, part="rest"), part="sum")
    rewriter.replace(node, [y])


def around_zero(codes: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unsigned codes as signed ones: the middle code becomes zero."""
    signed = codes.astype(np.int16) - (1 << (bits - 1))
    return signed.astype(ml_dtypes.int4 if bits == 4 else np.int8)
