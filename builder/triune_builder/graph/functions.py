"""Triune's own ops as ONNX local functions: each body is the plain, correct definition in standard ops.

A float graph runs as it is; a lowering replaces a function by name with what its target runs fast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import latent, moe
from .body import DOMAIN as DOMAIN
from .body import Body as _Body


def _linear() -> ir.Function:
    """y = x W^T; x [..., in], W [out, in]."""
    b = _Body("x", "weight")
    x, weight = b.inputs
    return b.function("Linear", [b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))])


def _attention() -> ir.Function:
    """Causal grouped-query attention with rotary positions over a growing cache.

    q [batch, n, heads dim]; k, v [batch, n, kv_heads dim]; past [batch, kv_heads, p, dim]; total_lengths [batch] int32 = p + n;
    cos, sin [max_length, dim/2]. Gives y [batch, n, heads dim] and present [batch, kv_heads, p + n, dim].
    With `window` W > 0 the query at position t sees the keys at t - W + 1 to t, else all up to t.
    """
    b = _Body("q", "k", "v", "past_key", "past_value", "total_lengths", "cos", "sin")
    q, k, v, past_key, past_value, total_lengths, cos, sin = b.inputs
    heads = b.attribute("num_heads", ir.AttributeType.INT)
    kv_heads = b.attribute("kv_num_heads", ir.AttributeType.INT)
    window = b.attribute("window", ir.AttributeType.INT)
    n = b.op("Shape", q, start=1, end=2)
    total = b.op("Cast", b.op("Unsqueeze", total_lengths, b.ints(1)), to=ir.DataType.INT64)
    steps = b.op("Range", b.scalar(0, np.int64), b.op("Squeeze", n), b.scalar(1, np.int64))
    positions = b.op("Add", b.op("Sub", total, n), b.op("Unsqueeze", steps, b.ints(0)))  # [batch, n]

    def split_heads(x: ir.Value, count: ir.Value) -> ir.Value:
        shape = b.op("Concat", b.ints(0, 0), b.op("Reshape", count, b.ints(1)), b.ints(-1), axis=0)
        return b.op("Transpose", b.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    q = b.op("RotaryEmbedding", split_heads(q, heads), cos, sin, positions)
    k = b.op("RotaryEmbedding", split_heads(k, kv_heads), cos, sin, positions)
    key = b.op("Concat", past_key, k, axis=2)
    value = b.op("Concat", past_value, split_heads(v, kv_heads), axis=2)
    length = b.op("Squeeze", b.op("Shape", key, start=2, end=3))
    keys = b.op("Unsqueeze", b.op("Range", b.scalar(0, np.int64), length, b.scalar(1, np.int64)), b.ints(0, 1))
    now = b.op("Unsqueeze", positions, b.ints(2))
    # A key is visible from its own position on. The mask says so itself: backends disagree about `is_causal` with a past.
    recent = b.op("Or", b.op("Greater", b.op("Add", keys, window), now), b.op("Equal", window, b.scalar(0, np.int64)))
    visible = b.op("And", b.op("LessOrEqual", keys, now), recent)
    y = b.op("Attention", q, key, value, b.op("Unsqueeze", visible, b.ints(1)))
    merged = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    kinds = dict.fromkeys(("num_heads", "kv_num_heads", "window"), ir.AttributeType.INT)
    return b.function("Attention", [merged, key, value], kinds)


def _quantize_rows() -> ir.Function:
    """Each row of x on its own: codes = round(127 x / max|x|) + 128 as uint8, row_scale = max|x| [..., 1].

    A row's codes depend on that row alone, so a sequence's numbers cannot depend on its batch mates.
    """
    b = _Body("x")
    (x,) = b.inputs
    top = b.op("ReduceMax", b.op("Abs", x), b.ints(-1), keepdims=1)
    row_scale = b.op("Max", top, b.scalar(1e-30))
    codes = b.op("QuantizeLinear", b.op("Div", x, row_scale), b.scalar(1 / 127), b.scalar(128, np.uint8))
    return b.function("QuantizeRows", [codes, row_scale])


def _linear_w8a8() -> ir.Function:
    """y = row_scale/127 * ((codes - 128) W) * weight_scale; codes uint8 [..., in], W int8 [in, out], weight_scale [out].

    The sums are of integers, hence exact: no kernel, blocking or batch size changes a bit of them.
    """
    b = _Body("codes", "row_scale", "weight", "weight_scale")
    codes, row_scale, weight, weight_scale = b.inputs
    sums = b.op("Cast", b.op("MatMulInteger", codes, weight, b.scalar(128, np.uint8)), to=ir.DataType.FLOAT)
    scaled = b.op("Mul", sums, b.op("Mul", weight_scale, b.scalar(1 / 127)))
    return b.function("LinearW8A8", [b.op("Mul", scaled, row_scale)])


def _dequantize_blocks(b: _Body, codes: ir.Value, scale: ir.Value, offset: ir.Value, blocks: ir.Value) -> ir.Value:
    """codes [..., k] uint8, scale and offset [..., k/block] -> scale * code + offset [..., k]."""
    rows = b.op("Shape", codes, start=0, end=-1)
    whole = b.op("Shape", codes)
    split = b.op("Reshape", b.op("Cast", codes, to=ir.DataType.FLOAT), b.op("Concat", rows, blocks, b.ints(-1), axis=0))
    last = b.ints(-1)
    values = b.op("Add", b.op("Mul", split, b.op("Unsqueeze", scale, last)), b.op("Unsqueeze", offset, last))
    return b.op("Reshape", values, whole)


def _linear_blocks() -> ir.Function:
    """y = x W^T where W = scale * codes + offset in blocks along `in`; codes uint8 [out, in], scale, offset [out, in/block]."""
    b = _Body("x", "codes", "scale", "offset")
    x, codes, scale, offset = b.inputs
    weight = _dequantize_blocks(b, codes, scale, offset, b.op("Shape", scale, start=1, end=2))
    y = b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))
    return b.function("LinearBlocks", [y], {"bits": ir.AttributeType.INT, "block_size": ir.AttributeType.INT})


def _embedding_blocks() -> ir.Function:
    """Rows `ids` of a table kept as blocks: codes uint8 [rows, in], scale [rows, in/block]; value = scale * (code - 128)."""
    b = _Body("codes", "scale", "ids")
    codes, scale, ids = b.inputs
    picked = b.op("Sub", b.op("Cast", b.op("Gather", codes, ids, axis=0), to=ir.DataType.FLOAT), b.scalar(128))
    scales = b.op("Gather", scale, ids, axis=0)
    shape = b.op("Shape", picked)
    split = b.op("Reshape", picked, b.op("Concat", b.op("Shape", scales), b.ints(-1), axis=0))
    return b.function("EmbeddingBlocks", [b.op("Reshape", b.op("Mul", split, b.op("Unsqueeze", scales, b.ints(-1))), shape)])


FUNCTIONS: dict[str, Callable[[], ir.Function]] = {
    "Linear": _linear,
    "Attention": _attention,
    "QuantizeRows": _quantize_rows,
    "LinearW8A8": _linear_w8a8,
    "LinearBlocks": _linear_blocks,
    "EmbeddingBlocks": _embedding_blocks,
    "LatentAttention": latent.latent_attention,
    "Route": moe.route,
    "Experts": moe.experts,
    "ExpertsBlocks": moe.experts_blocks,
}
