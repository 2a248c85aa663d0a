"""Mixture of experts for TensorRT in the one form that every target takes: all experts on all tokens, weighted by a matrix.

TensorRT's own MoE layer exists on SM100, SM103 and SM110 alone and its builder refuses it elsewhere; gathering each token's
expert weights copies them for every token of a prompt. So every expert's weights are read once a step, whatever is chosen.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import Place, Rewriter
from ...graph.weights import StackedTensor
from ..halves import keep_float
from ..routing import experts_of, ints, routing_matrix
from .blocks import INTS, around_zero


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
    matrix = routing_matrix(rewriter, place, route, 2)  # [batch, n, experts]
    experts = experts_of(route)
    one_row = place.op("Reshape", matrix, ints(rewriter, -1, experts), part="matrix_rows")
    columns = place.op("Transpose", one_row, part="by_expert", perm=[1, 0])
    wide = place.op("Unsqueeze", columns, ints(rewriter, -1), part="shares")  # [experts, tokens, 1]
    is_chosen = place.op("Greater", wide, keep_float(rewriter.constant("zero.float32", np.array(0, np.float32))), part="chosen")
    hidden_last = place.op("Unsqueeze", place.op("Flatten", x, part="rows", axis=2), ints(rewriter, 0), part="x")
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
    total = place.op("ReduceSum", every, ints(rewriter, 0), part="mixture", keepdims=0)
    rewriter.replace(node, [place.op("Reshape", total, place.op("Shape", x, part="shape"), part="whole")])
