"""Graph -> graph for TensorRT: Triune's functions become standard ops of opset 24 that TensorRT's parser reads rightly.

What the parser would drop without a word (Attention's `nonpad_kv_seqlen` and windows, `is_causal` with a cache) is never used:
what a query sees is an explicit mask made from positions. The cache is a linear buffer of static length, updated in place.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from ...errors import BuildError
from ...graph.export import GraphBundle
from ...graph.functions import DOMAIN
from ...graph.rewrite import Place, Rewriter
from ..halves import HALVES, keep_float, to_halves
from .attention import lower_attention, lower_latent
from .best import add_best
from .blocks import lower_blocks
from .gpus import HEAD_UNIT
from .moe import lower_experts, lower_experts_blocks
from .run_inputs import RunInputs

OPSET = 24
_SLOT_UNIT = 16  # positions: with heads of a multiple of 8 halves, slots then begin at multiples of 256 bytes


def capacity(max_length: int) -> int:
    """Positions of a slot for sequences of up to `max_length` tokens."""
    return max_length + -max_length % _SLOT_UNIT


def lower(bundle: GraphBundle, *, max_length: int, dtype: str) -> GraphBundle:
    """Rewrite the graph of `bundle` in place; docs/tensorrt.md lists the inputs and outputs that it then has.

    Args:
        dtype: of the arithmetic and the cache, "float16" or "bfloat16".

    Raises:
        BuildError: a size or a function that TensorRT cannot take.
    """
    for tensor in bundle.cache:
        if tensor.dim % HEAD_UNIT:
            raise BuildError(
                f"the cache tensor {tensor.name} has {tensor.dim} numbers a head; TensorRT's slots take multiples of 8",
                "this model cannot be built for this target",
            )
    rewriter, size = Rewriter(bundle.model), capacity(max_length)
    run = RunInputs(rewriter, size)
    for node in rewriter.find("Linear"):
        _linear(rewriter, node)
    lower_blocks(rewriter)
    lower_attention(rewriter, run)
    lower_latent(rewriter, run)
    lower_experts(rewriter)
    lower_experts_blocks(rewriter)
    rewriter.finish({"": OPSET})
    if left := sorted({node.op_type for node in rewriter.graph if node.domain == DOMAIN}):
        raise BuildError(
            f"no rule lowers {', '.join(left)} for TensorRT",
            "this is a fault of the lowering: report it with the model's config.json",
        )
    rewriter.graph.opset_imports.pop(DOMAIN, None)
    add_best(rewriter, run.close(bundle, HALVES[dtype]), bundle.vocab_size)
    to_halves(bundle.model, dtype)
    cache = tuple(dataclasses.replace(c, dtype=dtype, window=None, outputs=1) for c in bundle.cache)
    return dataclasses.replace(bundle, cache=cache, mtp=None)


def _linear(rewriter: Rewriter, node: ir.Node) -> None:
    """x times the transposed weight. A router computes in float32: a rounding there would choose another expert."""
    x, weight = node.inputs
    assert weight is not None
    place = Place(rewriter, node)
    if any(use.node.op_type == "Route" for use in node.outputs[0].uses()):
        x = place.op("Cast", x, part="wide", to=ir.DataType.FLOAT)
        keep_float(weight)
    transposed = place.op("Transpose", weight, part="weight", perm=[1, 0])
    rewriter.replace(node, [place.op("MatMul", x, transposed, part="matmul")])
