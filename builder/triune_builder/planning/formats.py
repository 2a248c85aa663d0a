"""Bytes that a weight takes in each precision, scales included."""

from __future__ import annotations

import math

from triune_runtime.manifest import DTYPE_BYTES

from ..errors import BuildError, option
from ..targets.cuda.precisions import find_precision
from .geometry import Block, Geometry

AUTO = "auto"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}
_FLOATS = {name: DTYPE_BYTES[_DTYPES[name]] for name in ("fp32", "bf16", "fp16")}
PRECISIONS = (*_FLOATS, "fp8", "int4")
KV_BYTES = {name: DTYPE_BYTES[_DTYPES[name]] for name in ("fp32", "bf16", "fp16", "fp8")}
# What R1's checkpoint keeps in 16 bits beside eight: published FP8 checkpoints of other models keep the same.
_UNQUANTIZED = ("embed_tokens.", "head.", "eh_proj.", "mlp.gate.")
_FP8_BLOCK, _SCALE = 128, 4
_FLOAT32 = "e_score_correction_bias"  # whatever the others are


def chosen_precision(name: str, geometry: Geometry) -> str:
    """The precision that is meant: by default what the checkpoint is stored in.

    Raises:
        BuildError: there is none of that name.
    """
    if name == AUTO:
        return "fp8" if geometry.fp8 else "bf16"
    if name not in PRECISIONS:
        raise BuildError(
            f"unknown precision {name!r}; the planner knows {', '.join((AUTO, *PRECISIONS))}",
            f"choose {option('precision', 'bf16')}",
        )
    return name


def chosen_kv(name: str, precision: str) -> str:
    """The type of keys and values that is meant: by default that of an engine's arithmetic.

    Raises:
        BuildError: there is none of that name.
    """
    kind = (precision if precision in _FLOATS else "bf16") if name == AUTO else name
    if kind not in KV_BYTES:
        known = ", ".join((AUTO, *KV_BYTES))
        raise BuildError(f"unknown KV type {name!r}; the planner knows {known}", "choose --kv-dtype bf16")
    return kind


def matrix_type(precision: str) -> str:
    """What products are computed in: four-bit weights are widened first."""
    return "fp8" if precision == "fp8" else "bf16"


def block_bytes(block: Block, precision: str, shape: tuple[int, ...] | None = None) -> int:
    """Of one of the block's weights, or of the part of it that has `shape`."""
    shape = block.shape if shape is None else shape
    size = math.prod(shape)
    if _FLOAT32 in block.name:
        return 4 * size
    if precision in _FLOATS:
        return _FLOATS[precision] * size
    if precision == "fp8":
        if len(shape) < 2 or any(part in block.name for part in _UNQUANTIZED):
            return 2 * size
        return size + _SCALE * math.prod(math.ceil(length / _FP8_BLOCK) for length in shape)
    return find_precision(precision).bytes_of(block.name, block.kind, shape)


def stored_bytes(geometry: Geometry, precision: str) -> int:
    """Of all tensors, those of layers that predict further tokens included: what a checkpoint of it takes, without headers."""
    every = [*geometry.blocks, *(block for layer in geometry.predictors for block in layer)]
    return sum(block.count * block_bytes(block, precision) for block in every)
