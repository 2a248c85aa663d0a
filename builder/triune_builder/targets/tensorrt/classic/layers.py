"""Everything of a layer but its attention: norms in float32, products of two matrices, splits, experts."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ....errors import BuildError
from ....graph.functions import DOMAIN
from ....graph.rewrite import Place, constant_array, constant_shape
from ...halves import keep_float
from ...routing import experts_of, ints, routing_matrix
from .attention import cut
from .run import PREFILL, Run

_LEAST = 2.0**-4  # of what a norm divides by first
_PLAIN = frozenset({"Add", "Mul", "Sigmoid", "Concat", "Cast"})  # of the float graph, right as they are


def lower_plain(run: Run) -> None:
    """The standard ops of the float graph, for numbers `[batch n, ...]` instead of `[batch, n, ...]` and opset 16.

    Raises:
        BuildError: an op of which it is not known what it is for such numbers.
    """
    rewriter = run.rewriter
    rules = {"Gather": _gather, "RMSNormalization": _norm, "Split": _split, "Reshape": _reshape}
    for node in list(rewriter.graph):
        if node.domain == DOMAIN:
            continue
        if node.op_type in rules:
            rules[node.op_type](run, Place(rewriter, node), node)
        elif node.op_type not in _PLAIN:
            raise BuildError(
                f"no rule lowers {node.op_type} for TensorRT 8.6 to 10",
                "this is a fault of the lowering: report it with the model's config.json",
            )


def _gather(run: Run, place: Place, node: ir.Node) -> None:
    """The embedding table's rows, or of a run's positions those that get logits."""
    data, indices = node.inputs
    assert data is not None and indices is not None
    if indices.name == "input_ids":
        flat = place.op("Reshape", run.input_ids, run.ints(-1), part="ids")
        run.rewriter.replace(node, [place.op("Gather", data, flat, part="rows", axis=0)])
    elif indices.name != "logit_positions":
        raise BuildError(f"no rule lowers a Gather of {indices.name}", "this is a fault of the lowering")
    elif run.kind == PREFILL:
        run.rewriter.replace(node, [place.op("Gather", data, run.logit_positions, part="rows", axis=0)])
    else:  # of one token each all get logits
        run.rewriter.replace(node, [data])


def _norm(run: Run, place: Place, node: ir.Node) -> None:
    """x / sqrt(mean(x^2) + epsilon) as (x/m) / sqrt(mean((x/m)^2) + epsilon/m^2), m the largest |x|.

    A residual stream holds numbers whose squares no half holds, and an engine may compute in halves.
    """
    x, weight = node.inputs
    wide = place.op("Cast", x, part="wide", to=ir.DataType.FLOAT)
    least = keep_float(run.rewriter.constant("norm.least", np.array(_LEAST, np.float32)))
    largest = place.op("ReduceMax", place.op("Abs", wide, part="size"), part="largest", axes=[-1], keepdims=1)
    measure = place.op("Max", largest, least, part="measure")
    scaled = place.op("Div", wide, measure, part="scaled")
    squares = place.op("ReduceMean", place.op("Mul", scaled, scaled, part="squares"), part="mean", axes=[-1], keepdims=1)
    value = node.attributes["epsilon"].as_float()
    part = keep_float(run.rewriter.constant(f"root.epsilon.{value}", np.array(np.sqrt(value), np.float32)))
    share = place.op("Div", part, measure, part="epsilon_root")
    epsilon = place.op("Mul", share, share, part="epsilon")
    root = place.op("Sqrt", place.op("Add", squares, epsilon, part="positive"), part="root")
    normal = place.op("Cast", place.op("Div", scaled, root, part="normal"), part="half", to=ir.DataType.FLOAT16)
    run.rewriter.replace(node, [place.op("Mul", normal, weight, part="weighed")])


def _split(run: Run, place: Place, node: ir.Node) -> None:
    """Pieces of the last axis."""
    x = node.inputs[0]
    assert x is not None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = [int(size) for size in constant_array(node.inputs[1])]
    else:
        sizes = [_width(x) // len(node.outputs)] * len(node.outputs)
    ends = np.cumsum(sizes)
    parts = [
        place.op("Slice", x, run.ints(int(end) - size), run.ints(int(end)), run.ints(-1), part=f"part.{i}")
        for i, (end, size) in enumerate(zip(ends, sizes, strict=True))
    ]
    run.rewriter.replace(node, parts)


def _width(x: ir.Value) -> int:
    """The last size of what a Linear gives, perhaps with its bias."""
    node = x.producer()
    while node is not None and node.op_type == "Add":
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    assert node is not None and node.op_type == "Linear" and node.inputs[1] is not None, "halves of a Linear's result"
    return constant_shape(node.inputs[1])[0]


def _reshape(run: Run, place: Place, node: ir.Node) -> None:
    """[batch, n, ...] said as (0, 0, ...) is [batch n, ...], (0, ...)."""
    x, shape = node.inputs
    assert shape is not None
    sizes = [int(size) for size in constant_array(shape)]
    assert sizes[:2] == [0, 0], f"{node.name}: a shape {sizes}"
    run.rewriter.replace(node, [place.op("Reshape", x, run.ints(*sizes[1:]), part="shaped")])


def lower_linears(run: Run) -> None:
    """x times the weight, which lies as [in, out]. A router computes in float32: a rounding would choose another expert."""
    for node in run.rewriter.find("Linear"):
        x, weight = node.inputs
        assert weight is not None
        place = Place(run.rewriter, node)
        turned = _side_by_side(run, weight)[1]
        if any(use.node.op_type == "Route" for use in node.outputs[0].uses()):
            x = place.op("Cast", x, part="wide", to=ir.DataType.FLOAT)
            keep_float(turned)
        run.rewriter.replace(node, [place.op("MatMul", x, turned, part="matmul")])


def _turned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(weight.T)


def lower_experts(run: Run) -> None:
    """All experts on all tokens, as two products of two matrices: the experts side by side, each weighed by its share."""
    for node in run.rewriter.find("Experts"):
        x, shares, _, gate_up, down = node.inputs
        route = shares.producer() if shares is not None else None
        assert route is not None and route.op_type == "Route", "experts are chosen by Route"
        assert gate_up is not None and down is not None
        place, experts = Place(run.rewriter, node), experts_of(route)
        both, first = _side_by_side(run, gate_up)
        inner, second = _on_top(run, down)
        matrix = routing_matrix(run.rewriter, place, route, 1)  # [tokens, experts] float32
        wide = place.op("Unsqueeze", matrix, ints(run.rewriter, -1), part="shares")
        zero = keep_float(run.rewriter.constant("zero.float32", np.array(0, np.float32)))
        is_chosen = place.op("Greater", wide, zero, part="chosen")
        every = place.op("MatMul", x, first, part="every")
        every = place.op("Reshape", every, run.ints(-1, experts, both), part="by_expert")
        gate, up = (cut(run, place, every, i * inner, (i + 1) * inner, 2, f"half.{i}") for i in range(2))
        silu = place.op("Mul", gate, place.op("Sigmoid", gate, part="sigmoid"), part="silu")
        half = place.op("Cast", wide, part="shares_half", to=ir.DataType.FLOAT16)
        weighed = place.op("Mul", place.op("Mul", silu, up, part="inner"), half, part="weighed")
        # What an expert makes of a token that it was not chosen for may overflow, and 0 x infinity is not a number.
        counted = place.op("Where", is_chosen, weighed, run.half(0.0), part="counted")
        flat = place.op("Reshape", counted, run.ints(-1, experts * inner), part="flat")
        run.rewriter.replace(node, [place.op("MatMul", flat, second, part="mixture")])


def _side_by_side(run: Run, weight: ir.Value) -> tuple[int, ir.Value]:
    """[out, in] as a weight [in, out], or [experts, out, in] as one weight [in, experts out]; and `out`."""
    *experts, out, width = constant_shape(weight)
    turned = run.rewriter.initializer(
        f"{weight.name}.turned",
        lambda: _turned(constant_array(weight).reshape(-1, width)),
        ir.DataType.FLOAT,
        (width, math.prod(experts) * out),
    )
    return out, turned


def _on_top(run: Run, weight: ir.Value) -> tuple[int, ir.Value]:
    """[experts, out, in] as one weight [experts in, out], and `in`: its product with the experts' inputs is their sum."""
    experts, out, width = constant_shape(weight)
    turned = run.rewriter.initializer(
        f"{weight.name}.turned",
        lambda: np.ascontiguousarray(constant_array(weight).swapaxes(1, 2)).reshape(-1, out),
        ir.DataType.FLOAT,
        (experts * width, out),
    )
    return width, turned
