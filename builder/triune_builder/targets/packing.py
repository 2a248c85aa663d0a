"""How block formats lay codes out in bytes, and what a format without zero points leaves of the blocks' offsets."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..graph.rewrite import constant_array
from ..quantize.schemes.blocks import SYMMETRIC


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis in bytes; four bits: the even one in the low half, an odd count padded with zero."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, 1)])
    return np.bitwise_or(codes[..., ::2], np.left_shift(codes[..., 1::2], np.uint8(4)))


def is_symmetric(scale: ir.Value, offset: ir.Value, bits: int) -> bool:
    """Whether every block's middle code stands for zero: known of those that were quantized so, else computed."""
    if SYMMETRIC in offset.meta:
        return bool(offset.meta[SYMMETRIC])
    return not np.any(offset_rest(scale, offset, bits))


def offset_rest(scale: ir.Value, offset: ir.Value, bits: int) -> NDArray[np.float32]:
    """What the middle code leaves of the offsets: [blocks, rows]."""
    rest = constant_array(offset) + constant_array(scale) * np.float32(1 << (bits - 1))
    return np.ascontiguousarray(rest.T.astype(np.float32))
