"""Mixture of experts for ONNX Runtime on a CPU: the contrib ops that compute the chosen experts alone.

What 1.32's CPU provider has, each compared with NumPy (tests/builder/test_moe.py):
- MoEGroupRouter: all of sigmoid routing in one op. It chooses right, of equals the first; gives log(score) of the chosen
  experts and -10000 for the others. Its scores are as exact as those of the Sigmoid op, about 1e-7 of 1.
- QMoE: integer blocks with zero points, gate and up rows interleaved. Without `router_weights` it weighs by a softmax over
  the chosen logits, whatever `normalize_routing_weights` says. At accuracy level 4 (int8 activations, as in our other
  products) an expert's bits for a token do not depend on the other tokens; at level 0 they do. It adds up a token's
  experts in an order that depends on what all tokens chose, which changes the bits of sums of three or more.
- MoE: float, interleaved rows only, no `router_weights`: always that softmax. An expert with one row goes through
  another kernel than with several, so bits would depend on what the others chose.
- MoEPacked and RouterGateUpProj: no CPU kernel.

So weights travel as logarithms, which the softmax undoes up to their sum, and the sum is multiplied back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.rewrite import Place, Rewriter
from ...graph.weights import StackedTensor
from ..packing import pack
from .rows import CONTRIB

_NOWHERE = np.float32(-10000)  # MoEGroupRouter's logarithm of what was not chosen
_TINY = np.float32(1e-20)  # and its least score
_ACTIVATION = {"activation_type": "swiglu", "activation_alpha": 1.0, "activation_beta": 0.0, "swiglu_fusion": 1}


class _Routing(NamedTuple):
    """Logarithms [tokens, experts] whose softmax times `total` (None: 1) are the weights; `top_k` experts a token."""

    logs: ir.Value
    total: ir.Value | None
    top_k: int


def lower_experts(rewriter: Rewriter) -> None:
    """Route and Experts or ExpertsBlocks -> MoEGroupRouter and MoE or QMoE."""
    twins: ir.Value | None = None
    for kind in ("Experts", "ExpertsBlocks"):
        for node in rewriter.find(kind):
            place, x = Place(rewriter, node), node.inputs[0]
            routing = _routing(rewriter, place, node)
            hidden = _stack(node.inputs[-1 if kind == "Experts" else -3]).sizes[1]
            rows = place.op("Reshape", x, _ints(rewriter, -1, hidden), part="rows")
            if kind == "Experts":
                twins = twins or _twins(rewriter, place, node)
                y = _float_experts(rewriter, place, node, rows, routing, twins)
            else:
                y = _block_experts(rewriter, place, node, rows, routing)
            if routing.total is not None:
                y = place.op("Mul", y, routing.total, part="weighed")
            rewriter.replace(node, [place.op("Reshape", y, place.op("Shape", x, part="shape"), part="whole")])


def _routing(rewriter: Rewriter, place: Place, node: ir.Node) -> _Routing:
    """The weights of `node` as its op wants them."""
    weights, indices = node.inputs[1], node.inputs[2]
    assert weights is not None
    route = weights.producer()
    assert route is not None and route.op_type == "Route", "experts are chosen by Route"
    ints = {name: attribute.as_int() for name, attribute in route.attributes.items() if name != "factor"}
    factor, top_k = np.float32(route.attributes["factor"].as_float()), ints["top_k"]
    scale = None if factor == 1 else rewriter.constant(f"experts.factor.{factor}", np.array(factor))
    last = _ints(rewriter, -1)
    if not ints["softmax"]:
        logs = place.op(
            "MoEGroupRouter", *route.inputs, part="logs", domain=CONTRIB,
            n_group=ints["groups"], topk_group=ints["top_groups"], top_k=top_k,
        )  # fmt: skip
        if ints["normalize"]:
            return _Routing(logs, scale, top_k)
        total = place.op("ReduceSum", place.op("Exp", logs, part="scores"), last, part="total", keepdims=1)
        return _Routing(logs, total if scale is None else place.op("Mul", total, scale, part="scaled"), top_k)
    chosen, where = (place.op("Reshape", v, _ints(rewriter, -1, top_k), part=p) for v, p in ((weights, "w"), (indices, "i")))
    least = rewriter.constant("experts.tiny", np.array(_TINY))
    logarithms = place.op("Log", place.op("Max", chosen, least, part="positive"), part="logarithms")
    tokens = place.op("Shape", chosen, part="tokens", start=0, end=1)
    experts = _ints(rewriter, _stack(node.inputs[3]).sizes[0])
    shape = place.op("Concat", tokens, experts, part="dense_shape", axis=0)
    nowhere = place.op("Expand", rewriter.constant("experts.nowhere", np.array(_NOWHERE)), shape, part="nowhere")
    logs = place.op("ScatterElements", nowhere, where, logarithms, part="logs", axis=1)
    return _Routing(logs, place.op("ReduceSum", chosen, last, part="total", keepdims=1), top_k)


def _twins(rewriter: Rewriter, place: Place, node: ir.Node) -> ir.Value:
    """How many of the rows are computed twice: all of them when every sequence has one, else none; [1]."""
    one = _ints(rewriter, 1)
    x = node.inputs[0]
    is_decode = place.op("Equal", place.op("Shape", x, part="n", start=1, end=2), one, part="is_decode")
    batch = place.op("Shape", x, part="batch", start=0, end=1)
    return place.op("Mul", place.op("Cast", is_decode, part="is_decode_int", to=ir.DataType.INT64), batch, part="twins")


def _float_experts(
    rewriter: Rewriter, place: Place, node: ir.Node, rows: ir.Value, routing: _Routing, twins: ir.Value
) -> ir.Value:
    """MoE. When sequences decode together each row goes in twice, so that no expert sees a single row and changes kernels."""
    zero = _ints(rewriter, 0)
    both = [
        place.op("Concat", v, place.op("Slice", v, zero, twins, zero, part=f"{p}.twins"), part=f"{p}.twice", axis=0)
        for v, p in ((rows, "rows"), (routing.logs, "logs"))
    ]
    gate_up, down = node.inputs[3:5]
    assert gate_up is not None
    interleaved = _remade(rewriter, gate_up, "interleaved", _interleave)
    y = place.op("MoE", *both, interleaved, None, down, part="moe", domain=CONTRIB, k=routing.top_k, **_ACTIVATION)
    tokens = place.op("Shape", rows, part="row_count", start=0, end=1)
    return place.op("Slice", y, zero, tokens, zero, part="first")


def _block_experts(rewriter: Rewriter, place: Place, node: ir.Node, rows: ir.Value, routing: _Routing) -> ir.Value:
    """QMoE. Of three or more experts a token, each has a row of its own and they are added up by a product: in fixed order."""
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    gate_up = _Blocks(rewriter, bits, node.inputs[3:6], interleaved=True)
    down = _Blocks(rewriter, bits, node.inputs[6:9], interleaved=False)
    experts, hidden, _ = _stack(node.inputs[6]).sizes
    logs, top_k = routing.logs, routing.top_k
    weights: ir.Value | None = None
    if top_k > 2:
        values, indices = place.ops("TopK", logs, _ints(rewriter, top_k), part="best", outputs=2, axis=-1)
        weights = place.op("Unsqueeze", place.op("Softmax", values, part="shares", axis=-1), _ints(rewriter, 1), part="weights")
        alone = np.where(np.eye(experts, dtype=np.bool_), np.float32(0), _NOWHERE)
        one_each = place.op("Gather", rewriter.constant(f"experts.alone.{experts}", alone), indices, part="one_each", axis=0)
        logs = place.op("Reshape", one_each, _ints(rewriter, -1, experts), part="one_log_each")
        copies = place.op(
            "Expand", place.op("Unsqueeze", rows, _ints(rewriter, 1), part="row"), _ints(rewriter, 1, top_k, 1), part="x"
        )
        rows = place.op("Reshape", copies, _ints(rewriter, -1, hidden), part="one_row_each")
    y = place.op(
        "QMoE", rows, logs, gate_up.codes, gate_up.scale, None, down.codes, down.scale, None, None, None, None,
        gate_up.zeros, down.zeros, part="qmoe", domain=CONTRIB, k=1 if weights is not None else top_k, block_size=block,
        expert_weight_bits=bits, accuracy_level=4, weights_prepacked=0, **_ACTIVATION,
    )  # fmt: skip
    if weights is None:
        return y
    every = place.op("Reshape", y, _ints(rewriter, -1, top_k, hidden), part="every")
    return place.op("Squeeze", place.op("MatMul", weights, every, part="mixed"), _ints(rewriter, 1), part="sum")


class _Blocks:
    """The inputs that QMoE wants for one stack of weights, made expert by expert when their bytes are written."""

    def __init__(self, rewriter: Rewriter, bits: int, parts: Sequence[ir.Value | None], *, interleaved: bool) -> None:
        codes, scale, offset = parts
        assert codes is not None and scale is not None and offset is not None
        order = _interleave if interleaved else _as_it_is
        scales, offsets = _stack(scale), _stack(offset)

        def packed(rows: NDArray[Any]) -> NDArray[np.uint8]:
            return pack(order(rows), bits)

        def zeros(i: int) -> NDArray[np.uint8]:
            steps = np.rint(-offsets.entry(i) / scales.entry(i))
            return pack(order(steps.astype(np.uint8)), bits)

        self.codes = _remade(rewriter, codes, "packed", packed, shrink=8 // bits)
        self.scale = _remade(rewriter, scale, "interleaved", order) if interleaved else scale
        count, out, blocks = scales.sizes
        shape = (count, out, -(-blocks * bits // 8))
        self.zeros = rewriter.stacked_initializer(f"{offset.name}.zeros", zeros, ir.DataType.UINT8, shape)


def _remade(
    rewriter: Rewriter, stack: ir.Value, suffix: str, make: Callable[[NDArray[Any]], NDArray[Any]], shrink: int = 1
) -> ir.Value:
    """A stack whose every entry is `make` of an entry of `stack`; the last axis may shrink."""
    tensor = _stack(stack)
    count, out, size = tensor.sizes
    shape = (count, out, size // shrink)
    return rewriter.stacked_initializer(f"{stack.name}.{suffix}", lambda i: make(tensor.entry(i)), tensor.dtype, shape)


def _interleave(rows: NDArray[Any]) -> NDArray[Any]:
    """[gate rows, up rows] -> a gate row and an up row in turn."""
    return np.ascontiguousarray(rows.reshape(2, -1, rows.shape[-1]).swapaxes(0, 1).reshape(rows.shape))


def _as_it_is(rows: NDArray[Any]) -> NDArray[Any]:
    return rows


def _stack(value: ir.Value | None) -> StackedTensor:
    assert value is not None and isinstance(value.const_value, StackedTensor), "experts' weights are stacks"
    return value.const_value


def _ints(rewriter: Rewriter, *values: int) -> ir.Value:
    return rewriter.constant(f"ints.{'.'.join(map(str, values))}", np.array(values, np.int64))
