"""Mixture of experts as local functions: which experts a token goes to, and what they compute; knows no architecture."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .body import Body

_INT, _FLOAT = ir.AttributeType.INT, ir.AttributeType.FLOAT


def route() -> ir.Function:
    """Group-limited choice of experts (DeepSeek-V3, section 2.1.2, "noaux_tc").

    logits [..., experts]; bias [experts], which takes part in the choice only. Scores are sigmoid(logits), or softmax with
    `softmax` 1. A group's score is the sum of its two best experts; the `top_k` best experts of the `top_groups` best of
    `groups` groups are chosen. Weights are the chosen scores, with `normalize` 1 divided by their sum, times `factor`.
    Gives weights and indices (int64) [..., top_k].
    """
    b = Body("logits", "bias")
    logits, bias = b.inputs
    groups, top_groups, top_k = (b.op("Reshape", b.attribute(a, _INT), b.ints(1)) for a in ("groups", "top_groups", "top_k"))
    is_softmax, is_normalized = (b.op("Cast", b.attribute(a, _INT), to=ir.DataType.BOOL) for a in ("softmax", "normalize"))
    scores = b.op("Where", is_softmax, b.op("Softmax", logits, axis=-1), b.op("Sigmoid", logits))
    choice = b.op("Add", scores, bias)
    rows, whole = b.op("Shape", logits, start=0, end=-1), b.op("Shape", logits)
    grouped = b.op("Reshape", choice, b.op("Concat", rows, groups, b.ints(-1), axis=0))
    size = b.op("Shape", grouped, start=-1)
    two = b.op("Min", size, b.ints(2))
    best, _ = b.ops("TopK", grouped, two, outputs=2, axis=-1)
    group_scores = b.op("ReduceSum", best, b.ints(-1), keepdims=0)
    _, chosen_groups = b.ops("TopK", group_scores, top_groups, outputs=2, axis=-1)
    nowhere = b.op("Expand", b.scalar(False, np.bool_), b.op("Shape", group_scores))
    yes = b.op("Expand", b.scalar(True, np.bool_), b.op("Shape", chosen_groups))
    allowed = b.op("Unsqueeze", b.op("ScatterElements", nowhere, chosen_groups, yes, axis=-1), b.ints(-1))
    limited = b.op("Reshape", b.op("Where", allowed, grouped, b.scalar(-np.inf)), whole)
    _, indices = b.ops("TopK", limited, top_k, outputs=2, axis=-1)
    chosen = b.op("GatherElements", scores, indices, axis=-1)
    total = b.op("Add", b.op("ReduceSum", chosen, b.ints(-1), keepdims=1), b.scalar(1e-20))
    weights = b.op("Mul", b.op("Where", is_normalized, b.op("Div", chosen, total), chosen), b.attribute("factor", _FLOAT))
    kinds = dict.fromkeys(("groups", "top_groups", "top_k", "softmax", "normalize"), _INT) | {"factor": _FLOAT}
    return b.function("Route", [weights, indices], kinds)


def experts() -> ir.Function:
    """y = sum over a token's experts of weight * down(silu(gate(x)) * up(x)).

    x [..., hidden]; weights and indices [..., top_k]; gate_up [experts, 2 inner, hidden], the gate's rows first;
    down [experts, hidden, inner].
    """
    b = Body("x", "weights", "indices", "gate_up", "down")
    x, weights, indices, gate_up, down = b.inputs
    return b.function("Experts", [_mixture(b, x, weights, indices, gate_up, down)])


def experts_blocks() -> ir.Function:
    """`Experts` with weights = scale * codes + offset in blocks along their last axis.

    codes uint8 [experts, out, in], scale and offset [experts, out, in/block].
    """
    names = [f"{part}_{what}" for part in ("gate_up", "down") for what in ("codes", "scale", "offset")]
    b = Body("x", "weights", "indices", *names)
    x, weights, indices, *parts = b.inputs
    gate_up, down = _values(b, *parts[:3]), _values(b, *parts[3:])
    return b.function("ExpertsBlocks", [_mixture(b, x, weights, indices, gate_up, down)], {"bits": _INT, "block_size": _INT})


def _values(b: Body, codes: ir.Value, scale: ir.Value, offset: ir.Value) -> ir.Value:
    """codes [e, out, in] uint8; scale, offset [e, out, blocks] -> scale * code + offset."""
    last = b.ints(-1)
    blocks = b.op("Reshape", b.op("Cast", codes, to=ir.DataType.FLOAT), b.op("Concat", b.op("Shape", scale), last, axis=0))
    values = b.op("Add", b.op("Mul", blocks, b.op("Unsqueeze", scale, last)), b.op("Unsqueeze", offset, last))
    return b.op("Reshape", values, b.op("Shape", codes))


def _mixture(
    b: Body, x: ir.Value, weights: ir.Value, indices: ir.Value, gate_up: ir.Value, down: ir.Value
) -> ir.Value:  # fmt: skip
    """Every expert computes every token, and those not chosen count nothing: plain, and only fit to define the result."""
    hidden = b.op("Shape", x, start=-1)
    rows = b.op("Reshape", x, b.op("Concat", b.ints(1, -1), hidden, axis=0))  # [1, tokens, hidden]
    both = b.op("MatMul", rows, b.op("Transpose", gate_up, perm=[0, 2, 1]))  # [experts, tokens, 2 inner]
    gate, up = b.ops("Split", both, outputs=2, axis=-1, num_outputs=2)
    inner = b.op("Mul", b.op("Mul", gate, b.op("Sigmoid", gate)), up)
    every = b.op("MatMul", inner, b.op("Transpose", down, perm=[0, 2, 1]))  # [experts, tokens, hidden]
    flat = b.op("Concat", b.ints(-1), b.op("Shape", indices, start=-1), axis=0)
    tokens = b.op("Shape", rows, start=1, end=2)
    none = b.op("Expand", b.scalar(0.0), b.op("Concat", tokens, b.op("Shape", gate_up, start=0, end=1), axis=0))
    dense = b.op("ScatterElements", none, b.op("Reshape", indices, flat), b.op("Reshape", weights, flat), axis=1)
    share = b.op("Unsqueeze", b.op("Transpose", dense, perm=[1, 0]), b.ints(-1))  # [experts, tokens, 1]
    mixed = b.op("ReduceSum", b.op("Mul", every, share), b.ints(0), keepdims=0)
    return b.op("Reshape", mixed, b.op("Shape", x))
