"""Multi-head latent attention (DeepSeek-V2, section 2.1) as a local function, in the absorbed form; knows no architecture."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .body import Body


def latent_attention() -> ir.Function:
    """Causal attention whose cache holds one latent vector and one rotated key a token, shared by all heads.

    The keys' up-projection is applied to the query and the values' to the result, so that no key or value is written out:
    q_nope . (W_UK c) = (W_UK^T q_nope) . c.

    query [batch, n, heads (nope + rope)]; latent [batch, n, lora], normalized; key_rope [batch, n, rope], not yet rotated;
    key_up [heads, nope, lora]; value_up [heads, lora, v]; past [batch, 1, p, lora + rope]; total_lengths [batch] int32 = p + n;
    cos, sin [max_length, rope/2]. Pairs rotate interleaved (2i, 2i + 1) or, with `interleaved` 0, as (i, i + rope/2).
    Gives y [batch, n, heads v] and present [batch, 1, p + n, lora + rope].
    """
    b = Body("query", "latent", "key_rope", "key_up", "value_up", "past", "total_lengths", "cos", "sin")
    query, latent, key_rope, key_up, value_up, past, total_lengths, cos, sin = b.inputs
    interleaved = ir.RefAttr("interleaved", "interleaved", ir.AttributeType.INT)
    one = b.ints(1)
    heads, nope = b.op("Shape", key_up, start=0, end=1), b.op("Shape", key_up, start=1, end=2)
    rope, lora = b.op("Shape", key_rope, start=2, end=3), b.op("Shape", key_up, start=2, end=3)
    n = b.op("Shape", query, start=1, end=2)
    total = b.op("Cast", b.op("Unsqueeze", total_lengths, one), to=ir.DataType.INT64)
    steps = b.op("Range", b.scalar(0, np.int64), b.op("Squeeze", n), b.scalar(1, np.int64))
    positions = b.op("Add", b.op("Sub", total, n), b.op("Unsqueeze", steps, b.ints(0)))  # [batch, n]

    split = b.op(
        "Transpose", b.op("Reshape", query, b.op("Concat", b.ints(0, 0), heads, b.ints(-1), axis=0)), perm=[0, 2, 1, 3]
    )
    q_nope, q_rope = b.ops("Split", split, b.op("Concat", nope, rope, axis=0), outputs=2, axis=-1)
    q_rope = b.op("RotaryEmbedding", q_rope, cos, sin, positions, interleaved=interleaved)
    absorbed = b.op("Concat", b.op("MatMul", q_nope, key_up), q_rope, axis=-1)  # [batch, heads, n, lora + rope]
    k_rope = b.op("RotaryEmbedding", b.op("Unsqueeze", key_rope, one), cos, sin, positions, interleaved=interleaved)
    present = b.op("Concat", past, b.op("Concat", b.op("Unsqueeze", latent, one), k_rope, axis=-1), axis=2)

    length = b.op("Squeeze", b.op("Shape", present, start=2, end=3))
    keys = b.op("Range", b.scalar(0, np.int64), length, b.scalar(1, np.int64))
    visible = b.op("LessOrEqual", b.op("Unsqueeze", keys, b.ints(0, 1)), b.op("Unsqueeze", positions, b.ints(2)))
    scale = b.attribute("scale", ir.AttributeType.FLOAT)
    scores = b.op("Mul", b.op("MatMul", absorbed, b.op("Transpose", present, perm=[0, 1, 3, 2])), scale)
    shown = b.op("Where", b.op("Unsqueeze", visible, one), scores, b.scalar(-np.inf))
    cached = b.op("Slice", present, b.ints(0), lora, b.ints(3))
    mixed = b.op("MatMul", b.op("Softmax", shown, axis=-1), cached)  # [batch, heads, n, lora]
    y = b.op("Transpose", b.op("MatMul", mixed, value_up), perm=[0, 2, 1, 3])
    merged = b.op("Reshape", y, b.ints(0, 0, -1))
    kinds = {"scale": ir.AttributeType.FLOAT, "interleaved": ir.AttributeType.INT}
    return b.function("LatentAttention", [merged, present], kinds)
