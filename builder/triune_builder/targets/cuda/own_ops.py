"""A written engine's graph -> the same with ops of Triune's own in place of several of ONNX Runtime's. Weights are shared.

What the ops compute is written in triune_runtime/targets/cuda/plan.py. Both graphs are published: the first one runs where the
library of the ops is not built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...graph.rewrite import Rewriter, constant_shape
from .kernels import CONTRIB

GRAPH = "ops.onnx"  # beside the first one
DOMAIN = "triune.ops"
_QUERY_NORM, _KEY_NORM = 12, 13  # inputs of PagedAttention
_LANES_UNIT = 16  # numbers of a head that a thread of the kernel takes


def write_own_ops(graph: Path) -> Path:
    """Write the second graph of `graph` beside it; its weights lie where that one's do."""
    model = ir.load(graph)
    rewriter = Rewriter(model)
    _gates(rewriter)
    for node in rewriter.find("PagedAttention", CONTRIB):
        _rotate_before(rewriter, node)
    rewriter.finish({DOMAIN: 1})
    path = graph.with_name(GRAPH)
    ir.save(model, path)
    return path


def _gates(rewriter: Rewriter) -> None:
    """Each of the two forms that `linears.gated` has -> SwiGLU."""
    for node in rewriter.find("GatedRMSNorm", CONTRIB):
        up, _, gate = node.inputs
        _gate(rewriter, node, gate, up)
    for node in rewriter.find("QuickGelu", CONTRIB):
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Mul" and node.attributes["alpha"].as_float() == 1:
            _gate(rewriter, uses[0].node, node.inputs[0], uses[0].node.inputs[1 - uses[0].idx])


def _gate(rewriter: Rewriter, node: ir.Node, gate: ir.Value | None, up: ir.Value | None) -> None:
    """SwiGLU of both, or of what they are the halves of: no copies of them are made then."""
    split = gate.producer() if gate is not None else None
    if split is not None and split.op_type == "Split" and tuple(split.outputs) == (gate, up) and len(split.inputs) == 1:
        assert split.attributes["axis"].as_int() == -1, "rows are halved"
        _replace(rewriter, node, "SwiGLU", split.inputs[0])
    else:
        _replace(rewriter, node, "SwiGLU", gate, up)


def _rotate_before(rewriter: Rewriter, node: ir.Node) -> None:
    """What PagedAttention does to a packed product before it attends, and the bias -> RotaryQKV, and attention to its parts."""
    said = {name: attribute.value for name, attribute in node.attributes.items()}
    inputs = [*node.inputs, *[None] * (17 - len(node.inputs))]
    packed, key, _, cache, _, ends, past, _, cos, sin = inputs[:10]
    if key is not None or said.get("do_rotary") != 1 or said.get("rotary_interleaved") or said.get("rotary_offset"):
        return
    assert packed is not None and cache is not None and cache.shape is not None and cos is not None
    dim = cache.shape[3]
    lanes = dim // _LANES_UNIT if isinstance(dim, int) else 0
    norms = inputs[_QUERY_NORM], inputs[_KEY_NORM]
    if constant_shape(cos)[1] * 2 != dim or dim % _LANES_UNIT or (norms[0] is not None and lanes & (lanes - 1)):
        return
    packed, bias = _without_bias(packed)
    heads = {name: said[name] for name in ("num_heads", "kv_num_heads")}
    query, key, value = rewriter.insert(
        node, "RotaryQKV", packed, cos, sin, ends, past, bias, *norms,
        name=f"{node.outputs[0].name}.rotated", outputs=3, domain=DOMAIN, epsilon=said.get("qk_norm_epsilon", 0.0), **heads,
    )  # fmt: skip
    inputs[:3] = [query, key, value]
    for index in (8, 9, _QUERY_NORM, _KEY_NORM):
        inputs[index] = None
    kept = {name: x for name, x in said.items() if name not in ("do_rotary", "qk_norm_epsilon")}
    _replace(rewriter, node, "PagedAttention", *inputs, domain=CONTRIB, **kept)


def _without_bias(packed: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """The product, and the bias that was added to it."""
    add = packed.producer()
    if add is None or add.op_type != "Add":
        return packed, None
    product, bias = add.inputs
    if product is None or bias is None or bias.const_value is None or len(constant_shape(bias)) != 1:
        return packed, None
    return product, bias


def _replace(rewriter: Rewriter, node: ir.Node, kind: str, *inputs: ir.Value | None, domain: str = DOMAIN, **said: Any) -> None:
    (old,) = node.outputs
    (y,) = rewriter.insert(node, kind, *inputs, name=f"{old.name}.own", domain=domain, **said)
    rewriter.replace(node, [y])
