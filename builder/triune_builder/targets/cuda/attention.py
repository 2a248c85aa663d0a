"""Attention for CUDA: com.microsoft.PagedAttention, which normalizes, rotates, writes into blocks and attends in one op."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import Place, Rewriter, constant_shape
from ..halves import keep_float
from ..routing import ints
from .kernels import CONTRIB
from .step_inputs import StepInputs


class CacheForm:
    """In which numbers the cache is kept."""

    def __init__(self, rewriter: Rewriter, *, fp8: bool) -> None:
        self._scale = None
        if fp8:  # keys and values are of a size that E4M3 holds without a scale: its least steps are 2^-9, its largest 448
            self._scale = keep_float(rewriter.constant("cache.scale", np.array([1], np.float32)))

    def scales(self, *parts: str) -> tuple[list[ir.Value | None], dict[str, Any]]:
        """Inputs 14 and 15 of PagedAttention and its attributes for the caches `parts`, of k and v."""
        if self._scale is None:
            return [None, None], {}
        return [self._scale if part in parts else None for part in "kv"], {f"{part}_quant_type": "PER_TENSOR" for part in parts}


class _Packed(NamedTuple):
    """Queries, keys and values as one product, and what each of their heads is normalized by."""

    product: ir.Value
    query_norm: ir.Value | None
    key_norm: ir.Value | None
    epsilon: float | None


def lower_attention(rewriter: Rewriter, step: StepInputs, form: CacheForm) -> None:
    """Attention -> PagedAttention over the packed product; a window is a mask, whatever lies before it stays in its blocks."""
    for node in rewriter.find("Attention"):
        query, key, value, past_key, past_value, _, cos, sin = node.inputs
        packed = _packed(query, key, value)
        scales, quantized = form.scales("k", "v")
        window, dim = node.attributes["window"].as_int(), _head_dim(past_key)
        more: dict[str, Any] = {"local_window_size": window} if window else {}
        if packed.epsilon is not None:
            more["qk_norm_epsilon"] = packed.epsilon
        (y,) = rewriter.insert(
            node,
            "PagedAttention",
            packed.product, None, None, past_key, past_value, *step.lengths, cos, sin,
            None, None, packed.query_norm, packed.key_norm, *scales, step.metadata,
            name=f"{node.outputs[0].name}.paged",
            domain=CONTRIB,
            num_heads=node.attributes["num_heads"].as_int(),
            kv_num_heads=node.attributes["kv_num_heads"].as_int(),
            do_rotary=1,
            scale=1 / math.sqrt(dim),
            **more,
            **quantized,
        )  # fmt: skip
        rewriter.replace(node, [y, None, None])


def lower_latent(rewriter: Rewriter, step: StepInputs, form: CacheForm) -> None:
    """LatentAttention -> PagedAttention over latents: one head of keys, whose first part is the values.

    The keys' up-projection is applied to the query and the values' to the result, so that the cache holds latents alone.
    """
    for node in rewriter.find("LatentAttention"):
        query, latent, key_rope, key_up, value_up, past, _, cos, sin = node.inputs
        assert key_up is not None
        heads, nope, lora = constant_shape(key_up)
        size = _head_dim(past)
        place = Place(rewriter, node)
        split = place.op("Reshape", query, ints(rewriter, 0, heads, nope + size - lora), part="heads")
        sizes = ints(rewriter, nope, size - lora)
        q_nope, q_rope = place.ops("Split", split, sizes, part="parts", outputs=2, axis=-1)
        by_head = place.op("Transpose", q_nope, part="by_head", perm=[1, 0, 2])
        absorbed = place.op("MatMul", by_head, key_up, part="absorbed")  # [heads, tokens, lora]
        by_token = place.op("Transpose", absorbed, part="by_token", perm=[1, 0, 2])
        q = place.op("Concat", by_token, q_rope, part="query", axis=-1)
        scales, quantized = form.scales("k")
        (mixed,) = rewriter.insert(
            node,
            "PagedAttention",
            place.op("Reshape", q, ints(rewriter, 0, heads * size), part="query_row"),
            place.op("Concat", latent, key_rope, part="key", axis=-1),
            None, past, None, *step.lengths, cos, sin, None, None, None, None, *scales, step.metadata,
            name=f"{node.outputs[0].name}.paged",
            domain=CONTRIB,
            num_heads=heads,
            kv_num_heads=1,
            kv_cache_layout="LATENT",
            v_head_size=lora,
            do_rotary=1,
            rotary_offset=lora,
            rotary_interleaved=node.attributes["interleaved"].as_int(),
            scale=node.attributes["scale"].as_float(),
            **quantized,
        )  # fmt: skip
        rows = place.op("Reshape", mixed, ints(rewriter, 0, heads, lora), part="mixed")
        values = place.op("MatMul", place.op("Transpose", rows, part="mixed_by_head", perm=[1, 0, 2]), value_up, part="values")
        together = place.op("Transpose", values, part="together", perm=[1, 0, 2])
        merged = place.op("Reshape", together, ints(rewriter, 0, -1), part="merged")
        rewriter.replace(node, [merged, None])


def _packed(query: ir.Value | None, key: ir.Value | None, value: ir.Value | None) -> _Packed:
    """The product of which the three are the parts, each head of the first two perhaps normalized."""
    q, query_norm = _normed(query)
    k, key_norm = _normed(key)
    assert value is not None and (query_norm is None) == (key_norm is None), "heads of queries and keys are normalized alike"
    split = value.producer()
    assert split is not None and split.op_type == "Split" and tuple(split.outputs) == (q, k, value), "one product, in its parts"
    product = split.inputs[0]
    assert product is not None
    if query_norm is None or key_norm is None:
        return _Packed(product, None, None, None)
    epsilon = query_norm.attributes["epsilon"].as_float()
    assert epsilon == key_norm.attributes["epsilon"].as_float(), "both norms have one epsilon"
    return _Packed(product, query_norm.inputs[1], key_norm.inputs[1], epsilon)


def _normed(x: ir.Value | None) -> tuple[ir.Value | None, ir.Node | None]:
    """What is normalized head by head to give `x`, and the norm; `x` and None where nothing is."""
    merge = x.producer() if x is not None else None
    if merge is None or merge.op_type != "Reshape":
        return x, None
    norm = merge.inputs[0].producer() if merge.inputs[0] is not None else None
    assert norm is not None and norm.op_type == "RMSNormalization" and norm.inputs[0] is not None
    split = norm.inputs[0].producer()
    assert split is not None and split.op_type == "Reshape", "each head is normalized by itself"
    return split.inputs[0], norm


def _head_dim(past: ir.Value | None) -> int:
    assert past is not None and past.shape is not None
    dim = past.shape[3]
    assert isinstance(dim, int)
    return dim
