"""Triune's own ops as ONNX local functions: each body is the plain, correct definition in standard ops.

A float graph runs as it is; a lowering replaces a function by name with what its target runs fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

DOMAIN = "triune"
_OPSET = 23


class _Body:
    """A tape that also makes constants, for function bodies (which cannot hold initializers)."""

    def __init__(self, *inputs: str) -> None:
        self.inputs = [ir.val(name) for name in inputs]
        self.tape = ir.tape.Tape()

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        return self.tape.op(kind, inputs, attributes=attributes or None)  # type: ignore[arg-type]

    def ints(self, *values: int) -> ir.Value:
        return self.tape.op("Constant", [], {"value": ir.tensor(np.array(values, np.int64))})

    def scalar(self, value: float, dtype: type = np.float32) -> ir.Value:
        return self.tape.op("Constant", [], {"value": ir.tensor(np.array(value, dtype))})

    def function(self, name: str, outputs: Sequence[ir.Value], attributes: Mapping[str, ir.AttributeType] = {}) -> ir.Function:
        graph = ir.Graph(self.inputs, list(outputs), nodes=self.tape.nodes, opset_imports={"": _OPSET}, name=name)
        return ir.Function(DOMAIN, name, graph=graph, attributes=[ir.Attr(n, t, None) for n, t in attributes.items()])


def _linear() -> ir.Function:
    """y = x W^T; x [..., in], W [out, in]."""
    b = _Body("x", "weight")
    x, weight = b.inputs
    return b.function("Linear", [b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))])


def _attention() -> ir.Function:
    """Causal grouped-query attention with rotary positions over a growing cache.

    qkv [batch, n, (heads + 2 kv_heads) dim]; past [batch, kv_heads, p, dim]; total_lengths [batch] int32 = p + n;
    cos, sin [max_length, dim/2]. Gives y [batch, n, heads dim] and present [batch, kv_heads, p + n, dim].
    """
    b = _Body("qkv", "past_key", "past_value", "total_lengths", "cos", "sin")
    qkv, past_key, past_value, total_lengths, cos, sin = b.inputs
    heads = b.op("Constant", value_int=ir.RefAttr("value_int", "num_heads", ir.AttributeType.INT))
    kv_heads = b.op("Constant", value_int=ir.RefAttr("value_int", "kv_num_heads", ir.AttributeType.INT))
    n = b.op("Shape", qkv, start=1, end=2)
    dim = b.op("Mul", b.op("Shape", cos, start=1, end=2), b.ints(2))
    total = b.op("Cast", b.op("Unsqueeze", total_lengths, b.ints(1)), to=ir.DataType.INT64)
    steps = b.op("Range", b.scalar(0, np.int64), b.op("Squeeze", n), b.scalar(1, np.int64))
    positions = b.op("Add", b.op("Sub", total, n), b.op("Unsqueeze", steps, b.ints(0)))  # [batch, n]

    one = b.ints(1)
    heads1, kv1 = b.op("Reshape", heads, one), b.op("Reshape", kv_heads, one)
    sizes = b.op("Concat", b.op("Mul", heads1, dim), b.op("Mul", kv1, dim), b.op("Mul", kv1, dim), axis=0)
    q, k, v = b.tape.op_multi_out("Split", [qkv, sizes], {"axis": -1}, num_outputs=3)

    def split_heads(x: ir.Value, count: ir.Value) -> ir.Value:
        shape = b.op("Concat", b.ints(0, 0), count, b.ints(-1), axis=0)
        return b.op("Transpose", b.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    q = b.op("RotaryEmbedding", split_heads(q, heads1), cos, sin, positions)
    k = b.op("RotaryEmbedding", split_heads(k, kv1), cos, sin, positions)
    key = b.op("Concat", past_key, k, axis=2)
    value = b.op("Concat", past_value, split_heads(v, kv1), axis=2)
    length = b.op("Squeeze", b.op("Shape", key, start=2, end=3))
    keys = b.op("Range", b.scalar(0, np.int64), length, b.scalar(1, np.int64))
    # A key is visible from its own position on. The mask says so itself: backends disagree about `is_causal` with a past.
    visible = b.op("LessOrEqual", b.op("Unsqueeze", keys, b.ints(0, 1)), b.op("Unsqueeze", positions, b.ints(2)))
    y = b.op("Attention", q, key, value, b.op("Unsqueeze", visible, b.ints(1)))
    merged = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    return b.function(
        "Attention", [merged, key, value], {"num_heads": ir.AttributeType.INT, "kv_num_heads": ir.AttributeType.INT}
    )


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
}
