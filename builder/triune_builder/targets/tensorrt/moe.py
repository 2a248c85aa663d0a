"""Mixture of experts for TensorRT in the one form that every target takes: all experts on all tokens, weighted by a matrix.

TensorRT's own MoE layer exists on SM100, SM103 and SM110 alone and its builder refuses it elsewhere; gathering each token's
expert weights copies them for every token of a prompt. So every expert's weights are read once a step, whatever is chosen.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import Place, Rewriter, constant_shape
from ...graph.weights import StackedTensor
from .blocks import INTS, around_zero
from .halves import keep_float


def lower_experts(rewriter: Rewriter) -> None:
    """Route and Experts -> a float32 matrix of weights, zero where an expert was not chosen, and batched products."""
    for node in rewriter.find("Experts"):
        place, (x, _, _, gate_up, down) = Place(rewriter, node), node.inputs
        _replace(rewriter, node, place, x, gate_up, down)


def lower_experts_blocks(rewriter: Rewriter) -> None:
    """The same with weights in blocks, whose middle code is zero."""
    for node in rewriter.find("ExpertsBlocks"):
        place, bits, block = Place(rewriter, node), node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()

        def values(
            first: int, part: str, node: ir.Node = node, place: Place = place, bits: int = bits, block: int = block
        ) -> ir.Value:
            codes, scale = node.inputs[first : first + 2]
            signed = _signed(rewriter, codes, bits)
            return place.op("DequantizeLinear", signed, scale, part=part, axis=2, block_size=block)

        _replace(rewriter, node, place, node.inputs[0], values(3, "gate_up"), values(6, "down"))


def _signed(rewriter: Rewriter, codes: ir.Value | None, bits: int) -> ir.Value:
    assert codes is not None and codes.name is not None and isinstance(codes.const_value, StackedTensor)
    tensor = codes.const_value
    name = f"{codes.name.removesuffix('.codes')}.int{bits}"
    return rewriter.stacked_initializer(name, lambda i: around_zero(tensor.entry(i), bits), INTS[bits], tensor.sizes)


def _replace(
    rewriter: Rewriter, node: ir.Node, place: Place, x: ir.Value | None, gate_up: ir.Value | None, down: ir.Value | None
) -> None:
    weights = node.inputs[1]
    route = weights.producer() if weights is not None else None
    assert x is not None and route is not None and route.op_type == "Route", "experts are chosen by Route"
    matrix = _matrix(rewriter, place, route)  # [batch, n, experts]
    experts = _experts(route)
    one_row = place.op("Reshape", matrix, _ints(rewriter, -1, experts), part="matrix_rows")
    columns = place.op("Transpose", one_row, part="by_expert", perm=[1, 0])
    wide = place.op("Unsqueeze", columns, _ints(rewriter, -1), part="shares")  # [experts, tokens, 1]
    is_chosen = place.op("Greater", wide, keep_float(rewriter.constant("zero.float32", np.array(0, np.float32))), part="chosen")
    hidden_last = place.op("Unsqueeze", place.op("Flatten", x, part="rows", axis=2), _ints(rewriter, 0), part="x")
    both = place.op("MatMul", hidden_last, place.op("Transpose", gate_up, part="gate_up_t", perm=[0, 2, 1]), part="both")
    gate, up = place.ops("Split", both, part="halves", outputs=2, axis=-1, num_outputs=2)
    inner = place.op("Mul", gate, place.op("Sigmoid", gate, part="sigmoid"), part="silu")
    inner = place.op(
        "Mul", place.op("Mul", inner, up, part="inner"), place.op("CastLike", wide, x, part="shares_half"), part="weighed"
    )
    # What an expert makes of a token that it was not chosen for may overflow, and 0 x infinity is not a number.
    nothing = rewriter.constant("zero.half", np.array(0, np.float32))
    inner = place.op("Where", is_chosen, inner, nothing, part="counted")
    every = place.op("MatMul", inner, place.op("Transpose", down, part="down_t", perm=[0, 2, 1]), part="every")
    total = place.op("ReduceSum", every, _ints(rewriter, 0), part="mixture", keepdims=0)
    rewriter.replace(node, [place.op("Reshape", total, place.op("Shape", x, part="shape"), part="whole")])


def _matrix(rewriter: Rewriter, place: Place, route: ir.Node) -> ir.Value:
    """The experts' weights for every token, float32 [batch, n, experts]: as `Route` defines them, zero where not chosen."""
    logits, bias = route.inputs
    assert bias is not None
    keep_float(bias)
    ints = {name: attribute.as_int() for name, attribute in route.attributes.items() if name != "factor"}
    factor, experts, groups = route.attributes["factor"].as_float(), _experts(route), ints["groups"]
    scores = (
        place.op("Softmax", logits, part="scores", axis=-1) if ints["softmax"] else place.op("Sigmoid", logits, part="scores")
    )
    choice = place.op("Add", scores, bias, part="choice")
    low = keep_float(rewriter.constant("masked.float32", np.array(-1e30, np.float32)))
    if ints["top_groups"] < groups:
        grouped = place.op("Reshape", choice, _ints(rewriter, 0, 0, groups, experts // groups), part="grouped")
        two = _ints(rewriter, min(2, experts // groups))
        best, _ = place.ops("TopK", grouped, two, part="best", outputs=2, axis=-1)
        group_scores = place.op("ReduceSum", best, _ints(rewriter, -1), part="group_scores", keepdims=0)
        allowed = _hot(rewriter, place, group_scores, ints["top_groups"], groups, "groups")
        is_allowed = place.op(
            "Cast", place.op("Unsqueeze", allowed, _ints(rewriter, -1), part="allowed"), part="is_allowed", to=ir.DataType.BOOL
        )
        limited = place.op("Where", is_allowed, grouped, low, part="limited")
        choice = place.op("Reshape", limited, _ints(rewriter, 0, 0, experts), part="ungrouped")
    chosen = place.op("Mul", _hot(rewriter, place, choice, ints["top_k"], experts, "experts"), scores, part="chosen_scores")
    if ints["normalize"]:
        total = place.op("ReduceSum", chosen, _ints(rewriter, -1), part="total", keepdims=1)
        tiny = keep_float(rewriter.constant("tiny.float32", np.array(1e-20, np.float32)))
        chosen = place.op("Div", chosen, place.op("Add", total, tiny, part="total_positive"), part="normalized")
    return place.op(
        "Mul", chosen, keep_float(rewriter.constant(f"factor.{factor}", np.array(factor, np.float32))), part="matrix"
    )


def _hot(rewriter: Rewriter, place: Place, values: ir.Value, count: int, size: int, part: str) -> ir.Value:
    """1.0 at the `count` largest of `size` along the last axis, else 0.0; float32 of the shape of `values` [batch, n, size]."""
    _, indices = place.ops("TopK", values, _ints(rewriter, count), part=f"{part}.top", outputs=2, axis=-1)
    numbers = rewriter.constant(f"numbers.{size}", np.arange(size, dtype=np.int64))
    same = place.op(
        "Equal", place.op("Unsqueeze", indices, _ints(rewriter, -1), part=f"{part}.index"), numbers, part=f"{part}.same"
    )
    ones = place.op("Cast", same, part=f"{part}.ones", to=ir.DataType.FLOAT)
    return place.op("ReduceSum", ones, _ints(rewriter, 2), part=f"{part}.hot", keepdims=0)


def _experts(route: ir.Node) -> int:
    bias = route.inputs[1]
    assert bias is not None
    return constant_shape(bias)[0]


def _ints(rewriter: Rewriter, *values: int) -> ir.Value:
    return rewriter.constant(f"ints.{'.'.join(map(str, values))}", np.array(values, np.int64))
