"""Which experts a token goes to, in standard ops that every target takes: a weight for each expert, zero where not chosen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.rewrite import Place, Rewriter, constant_shape
from .halves import keep_float


def routing_matrix(rewriter: Rewriter, place: Place, route: ir.Node, axes: int) -> ir.Value:
    """The experts' weights for every token, float32 [..., experts]: as `Route` defines them, zero where not chosen.

    Args:
        axes: before that of the experts, 2 where there are a batch and its positions.
    """
    logits, bias = route.inputs
    assert bias is not None
    keep_float(bias)
    said = {name: attribute.as_int() for name, attribute in route.attributes.items() if name != "factor"}
    lead = (0,) * axes
    factor, experts, groups = route.attributes["factor"].as_float(), experts_of(route), said["groups"]
    scores = (
        place.op("Softmax", logits, part="scores", axis=-1) if said["softmax"] else place.op("Sigmoid", logits, part="scores")
    )
    choice = place.op("Add", scores, bias, part="choice")
    low = keep_float(rewriter.constant("left_out.float32", np.array(-3e4, np.float32)))  # halves hold it
    if said["top_groups"] < groups:
        grouped = place.op("Reshape", choice, ints(rewriter, *lead, groups, experts // groups), part="grouped")
        two = ints(rewriter, min(2, experts // groups))
        best, _ = place.ops("TopK", grouped, two, part="best", outputs=2, axis=-1)
        group_scores = place.op("ReduceSum", best, ints(rewriter, -1), part="group_scores", keepdims=0)
        allowed = _hot(rewriter, place, group_scores, said["top_groups"], groups, "groups", axes)
        is_allowed = place.op(
            "Cast", place.op("Unsqueeze", allowed, ints(rewriter, -1), part="allowed"), part="is_allowed", to=ir.DataType.BOOL
        )
        limited = place.op("Where", is_allowed, grouped, low, part="limited")
        choice = place.op("Reshape", limited, ints(rewriter, *lead, experts), part="ungrouped")
    chosen = place.op(
        "Mul", _hot(rewriter, place, choice, said["top_k"], experts, "experts", axes), scores, part="chosen_scores"
    )
    if said["normalize"]:
        total = place.op("ReduceSum", chosen, ints(rewriter, -1), part="total", keepdims=1)
        tiny = keep_float(rewriter.constant("tiny.float32", np.array(1e-20, np.float32)))
        chosen = place.op("Div", chosen, place.op("Add", total, tiny, part="total_positive"), part="normalized")
    return place.op(
        "Mul", chosen, keep_float(rewriter.constant(f"factor.{factor}", np.array(factor, np.float32))), part="matrix"
    )


def _hot(rewriter: Rewriter, place: Place, values: ir.Value, count: int, size: int, part: str, axes: int) -> ir.Value:
    """1.0 at the `count` largest of `size` along the last axis, else 0.0; float32 of the shape of `values` [..., size]."""
    _, indices = place.ops("TopK", values, ints(rewriter, count), part=f"{part}.top", outputs=2, axis=-1)
    numbers = rewriter.constant(f"numbers.{size}", np.arange(size, dtype=np.int64))
    same = place.op(
        "Equal", place.op("Unsqueeze", indices, ints(rewriter, -1), part=f"{part}.index"), numbers, part=f"{part}.same"
    )
    ones = place.op("Cast", same, part=f"{part}.ones", to=ir.DataType.FLOAT)
    return place.op("ReduceSum", ones, ints(rewriter, axes), part=f"{part}.hot", keepdims=0)


def experts_of(route: ir.Node) -> int:
    """How many experts there are."""
    bias = route.inputs[1]
    assert bias is not None
    return constant_shape(bias)[0]


def ints(rewriter: Rewriter, *values: int) -> ir.Value:
    """A constant of whole numbers."""
    return rewriter.constant(f"ints.{'.'.join(map(str, values))}", np.array(values, np.int64))
