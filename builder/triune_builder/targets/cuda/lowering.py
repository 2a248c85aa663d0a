"""Graph -> graph for ONNX Runtime on CUDA: Triune's functions become the ops that it runs fast over packed tokens.

Every value is a row a token, [tokens, ...]: there is no batch, and nothing is padded. triune_runtime/targets/cuda/plan.py says
what the graph reads and gives.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ...checkpoint import Tensor
from ...errors import BuildError
from ...graph.export import GraphBundle
from ...graph.functions import DOMAIN
from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ..halves import HALVES, to_halves
from .attention import CacheForm, lower_attention, lower_latent
from .kernels import CONTRIB, IR_VERSION, OPSET
from .linears import lower_blocks, lower_gates, lower_linears, lower_norms
from .moe import lower_experts
from .step_inputs import StepInputs, only_logits

FP8 = "float8_e4m3fn"
_STORED = {"float16": "F16", "bfloat16": "BF16"}  # as a checkpoint calls it


def lower(bundle: GraphBundle, *, dtype: str, cache: str) -> GraphBundle:
    """Rewrite the graph of `bundle` in place.

    Args:
        dtype: of the arithmetic, "float16" or "bfloat16".
        cache: of keys and values, the same or "float8_e4m3fn".

    Raises:
        BuildError: a function that no rule lowers.
    """
    rewriter = Rewriter(bundle.model)
    only_logits(rewriter)
    step, form = StepInputs(rewriter), CacheForm(rewriter, fp8=cache == FP8)
    lower_attention(rewriter, step, form)
    lower_latent(rewriter, step, form)
    lower_experts(rewriter, dtype)
    lower_gates(rewriter, dtype)
    sources = bundle.sources | lower_linears(rewriter, bundle)
    lower_blocks(rewriter)
    rewriter.finish({"": OPSET, CONTRIB: 1})  # what is left of norms that attention does itself goes here
    lower_norms(rewriter)
    rewriter.finish({"": OPSET, CONTRIB: 1})
    if left := sorted({node.op_type for node in rewriter.graph if node.domain == DOMAIN}):
        raise BuildError(
            f"no rule lowers {', '.join(left)} for CUDA",
            "this is a fault of the lowering: report it with the model's config.json",
        )
    rewriter.graph.opset_imports.pop(DOMAIN, None)
    step.close(bundle.cache, ir.DataType.FLOAT8E4M3FN if cache == FP8 else HALVES[cache], bundle.vocab_size)
    bundle.model.ir_version = IR_VERSION
    to_halves(bundle.model, dtype, lambda name: _in_place(sources.get(name), dtype))
    return dataclasses.replace(bundle, sources=sources, cache=kept_cache(bundle.cache, cache), mtp=None)


def kept_cache(cache: tuple[CacheTensor, ...], dtype: str) -> tuple[CacheTensor, ...]:
    """How an engine keeps the cache of a model: blocks hold every position, whatever a window sees of them."""
    return tuple(dataclasses.replace(c, dtype=dtype, window=None, outputs=1) for c in cache)


def _in_place(source: WeightSource | None, dtype: str) -> ir.ExternalTensor | None:
    """The weight where the checkpoint has it, if its bytes there are what the engine reads."""
    part = source.parts[0] if source is not None and len(source.parts) == 1 else None
    if not isinstance(part, Tensor) or part.dtype != _STORED[dtype] or (location := part.location()) is None:
        return None
    path, offset, length = location
    if offset % 2:
        return None
    return ir.ExternalTensor(
        path.name, offset, length, HALVES[dtype], shape=ir.Shape(part.shape), name=part.name, base_dir=path.parent
    )
