"""Mixture of experts for CUDA in plain ops: two products over all experts, and a matrix of weights between them.

Every expert is asked about every token, and counts nothing where it was not chosen: right with any routing, and each weight is
read once a step. ONNX Runtime's own op for float experts scores by a softmax, which this routing is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.rewrite import Place, Rewriter
from ...graph.weights import StackedTensor
from ..halves import HALVES, keep_float
from ..routing import experts_of, ints, routing_matrix
from .kernels import CONTRIB
from .linears import block_product, gated, packed_blocks


class _Stack(NamedTuple):
    """The experts' weights in one matrix, as floats or as codes with their scales."""

    weight: ir.Value
    scale: ir.Value | None
    rows: int
    columns: int


def lower_experts(rewriter: Rewriter, dtype: str) -> None:
    """Route with Experts or ExpertsBlocks -> products of all experts at once."""
    for node in rewriter.find("Experts"):
        _replace(rewriter, node, _below(rewriter, node.inputs[3]), _beside(rewriter, node.inputs[4]), dtype)
    for node in rewriter.find("ExpertsBlocks"):
        bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
        gate_up = _coded(rewriter, node.inputs[3], node.inputs[4], bits, block, beside=False)
        down = _coded(rewriter, node.inputs[6], node.inputs[7], bits, block, beside=True)
        _replace(rewriter, node, gate_up, down, dtype, bits=bits, block=block)


def _replace(
    rewriter: Rewriter, node: ir.Node, gate_up: _Stack, down: _Stack, dtype: str, *, bits: int = 0, block: int = 0
) -> None:
    place, x, weights = Place(rewriter, node), node.inputs[0], node.inputs[1]
    route = weights.producer() if weights is not None else None
    assert route is not None and route.op_type == "Route", "experts are chosen by Route"
    experts, inner = experts_of(route), down.columns // experts_of(route)

    def product(x: ir.Value | None, stack: _Stack, part: str) -> ir.Value:
        if stack.scale is None:
            return place.op("FusedMatMul", x, stack.weight, part=part, domain=CONTRIB, transB=1)
        sizes = {"rows": stack.rows, "columns": stack.columns, "bits": bits, "block": block}
        return block_product(place, x, stack.weight, stack.scale, part=part, **sizes)

    matrix = routing_matrix(rewriter, place, route, 1)  # [tokens, experts]
    wide = place.op("Unsqueeze", matrix, ints(rewriter, -1), part="shares")
    is_chosen = place.op("Greater", wide, keep_float(rewriter.constant("zero.float32", np.array(0, np.float32))), part="chosen")
    both = place.op("Reshape", product(x, gate_up, "both"), ints(rewriter, 0, experts, 2 * inner), part="by_expert")
    gate, up = place.ops("Split", both, part="halves", outputs=2, axis=-1, num_outputs=2)
    middle = gated(rewriter, place, gate, up, inner, dtype)  # [tokens, experts, inner]
    shares = place.op("Cast", wide, part="shares_half", to=HALVES[dtype])
    weighed = place.op("Mul", middle, shares, part="weighed")
    # What an expert makes of a token that it was not chosen for may overflow, and 0 x infinity is not a number.
    counted = place.op("Where", is_chosen, weighed, rewriter.constant("zero.half", np.array(0, np.float32)), part="counted")
    row = place.op("Reshape", counted, ints(rewriter, 0, experts * inner), part="row")
    rewriter.replace(node, [product(row, down, "mixture")])


def _below(rewriter: Rewriter, value: ir.Value | None) -> _Stack:
    """Weights [experts, out, in] as [experts * out, in]: the same bytes."""
    tensor, name = _stack(value)
    experts, rows, columns = tensor.sizes
    flat = rewriter.stacked_initializer(f"{name}.below", tensor.entry, tensor.dtype, tensor.sizes, flat=True)
    return _Stack(flat, None, experts * rows, columns)


def _beside(rewriter: Rewriter, value: ir.Value | None) -> _Stack:
    """Weights [experts, out, in] as [out, experts * in]: the product sums over the experts, too."""
    tensor, name = _stack(value)
    experts, rows, columns = tensor.sizes
    wide = rewriter.initializer(f"{name}.beside", lambda: _joined(tensor), tensor.dtype, (rows, experts * columns))
    return _Stack(wide, None, rows, experts * columns)


def _coded(
    rewriter: Rewriter, codes: ir.Value | None, scale: ir.Value | None, bits: int, block: int, *, beside: bool
) -> _Stack:
    """The same two of codes whose middle one is zero, in MatMulNBits' form."""
    (tensor, name), (scales, scale_name) = _stack(codes), _stack(scale)
    experts, rows, columns = tensor.sizes
    blocks, width = columns // block, block * bits // 8
    name, uint8 = name.removesuffix(".codes"), ir.DataType.UINT8
    if beside:
        packed = rewriter.initializer(
            f"{name}.packed",
            lambda: packed_blocks(_joined(tensor), bits, block),
            uint8,
            (rows, experts * blocks, width),
        )
        wide = rewriter.initializer(f"{scale_name}.beside", lambda: _joined(scales), scales.dtype, (rows, experts * blocks))
        return _Stack(packed, wide, rows, experts * columns)
    packed = rewriter.stacked_initializer(
        f"{name}.packed",
        lambda i: packed_blocks(tensor.entry(i), bits, block),
        uint8,
        (experts, rows, blocks, width),
        flat=True,
    )
    below = rewriter.stacked_initializer(f"{scale_name}.below", scales.entry, scales.dtype, scales.sizes, flat=True)
    return _Stack(packed, below, experts * rows, columns)


def _stack(value: ir.Value | None) -> tuple[StackedTensor, str]:
    assert value is not None and value.name is not None and isinstance(value.const_value, StackedTensor), "experts are stacks"
    return value.const_value, value.name


def _joined(tensor: StackedTensor) -> NDArray[Any]:
    """The entries side by side."""
    return np.concatenate([tensor.entry(i) for i in range(tensor.sizes[0])], axis=-1)
