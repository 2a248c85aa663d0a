"""Attention for TensorRT: rotate, write into the slot's linear buffer, attend under a mask made from positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import Place, Rewriter, constant_shape
from ..halves import keep_float
from .run_inputs import RunInputs

FUSED_HEAD = 256  # numbers a head up to which TensorRT has a fused kernel


def lower_attention(rewriter: Rewriter, run: RunInputs) -> None:
    """Attention -> RotaryEmbedding, TensorScatter and a standard Attention over the whole slot, masked."""
    masks = Masks(rewriter, run)
    for node in rewriter.find("Attention"):
        query, key, value, past_key, past_value, _, cos, sin = node.inputs
        heads, kv_heads = (node.attributes[n].as_int() for n in ("num_heads", "kv_num_heads"))
        place = Place(rewriter, node)

        def split(x: ir.Value | None, count: int, part: str, place: Place = place) -> ir.Value:
            shape = rewriter.constant(f"heads.{count}", np.array([0, 0, count, -1], np.int64))
            return place.op("Transpose", place.op("Reshape", x, shape, part=f"{part}.split"), part=part, perm=[0, 2, 1, 3])

        q = place.op("RotaryEmbedding", split(query, heads, "q"), cos, sin, run.positions, part="q_rope")
        k = place.op("RotaryEmbedding", split(key, kv_heads, "k"), cos, sin, run.positions, part="k_rope")
        keys = write(place, past_key, k, run, "keys")
        values = write(place, past_value, split(value, kv_heads, "v"), run, "values")
        mask = masks.of(place, node.attributes["window"].as_int())
        y = place.op("Attention", q, keys, values, mask, part="attention")
        rewriter.replace(node, [merge(rewriter, place, y), keys, values])


def lower_latent(rewriter: Rewriter, run: RunInputs) -> None:
    """LatentAttention -> the absorbed query over the latents as the only key and value head.

    The cache holds latents alone; keys and values of all heads, written out, would be computed anew for the whole slot in every
    run. Where lora + rope numbers fit a fused kernel, it is Attention with one key and value head; R1's 576 do not, and it is
    products and a softmax, written out here so that the build need not fall back on its own.
    """
    masks = Masks(rewriter, run)
    for node in rewriter.find("LatentAttention"):
        query, latent, key_rope, key_up, value_up, past, _, cos, sin = node.inputs
        assert key_up is not None and past is not None and past.shape is not None
        heads, nope, lora = constant_shape(key_up)
        size = int(past.shape[3])  # type: ignore[arg-type]  # static
        rope, scale = size - lora, node.attributes["scale"].as_float()
        turn = {"interleaved": node.attributes["interleaved"].as_int()}
        place = Place(rewriter, node)
        by_heads = rewriter.constant(f"heads.{heads}", np.array([0, 0, heads, -1], np.int64))
        sizes = rewriter.constant(f"latent.sizes.{nope}.{rope}", np.array([nope, rope], np.int64))
        one = rewriter.constant("axis.1", np.array([1], np.int64))

        split = place.op("Transpose", place.op("Reshape", query, by_heads, part="split"), part="heads", perm=[0, 2, 1, 3])
        q_nope, q_rope = place.ops("Split", split, sizes, part="parts", outputs=2, axis=-1)
        q_rope = place.op("RotaryEmbedding", q_rope, cos, sin, run.positions, part="q_rope", **turn)
        q = place.op("Concat", place.op("MatMul", q_nope, key_up, part="absorbed"), q_rope, part="query", axis=-1)
        k_rope = place.op("Unsqueeze", key_rope, one, part="k_head")
        k_rope = place.op("RotaryEmbedding", k_rope, cos, sin, run.positions, part="k_rope", **turn)
        key = place.op("Concat", place.op("Unsqueeze", latent, one, part="latent"), k_rope, part="key", axis=-1)
        cached = write(place, past, key, run, "latents")
        mask = masks.of(place, 0)
        if size <= FUSED_HEAD:
            mixed = place.op("Attention", q, cached, cached, mask, part="attention", scale=scale)
        else:
            mixed = _written_out(rewriter, place, q, cached, mask, scale)
        start, end, axis = (rewriter.constant(f"slice.{i}", np.array([i], np.int64)) for i in (0, lora, 3))
        mixed = place.op("Slice", mixed, start, end, axis, part="latent_part")
        y = place.op("MatMul", mixed, value_up, part="values")
        rewriter.replace(node, [merge(rewriter, place, y), cached])


def _written_out(rewriter: Rewriter, place: Place, q: ir.Value, cached: ir.Value, mask: ir.Value, scale: float) -> ir.Value:
    """softmax(q k^T) k with float32 scores; q [batch, heads, n, size], cached [batch, 1, capacity, size]."""
    turned = place.op("Transpose", cached, part="turned", perm=[0, 1, 3, 2])
    factor = rewriter.constant(f"scale.{scale}", np.array(scale, np.float32))
    scores = place.op("MatMul", place.op("Mul", q, factor, part="scaled"), turned, part="scores")
    wide = place.op("Cast", scores, part="wide_scores", to=ir.DataType.FLOAT)
    low = keep_float(rewriter.constant("masked.float32", np.array(-1e30, np.float32)))
    shares = place.op("Softmax", place.op("Where", mask, wide, low, part="shown"), part="wide_shares", axis=-1)
    return place.op("MatMul", place.op("CastLike", shares, q, part="shares"), cached, part="mixed")


def write(place: Place, past: ir.Value | None, update: ir.Value, run: RunInputs, part: str) -> ir.Value:
    """The buffer [batch, heads, capacity, dim] with `update` [batch, heads, n, dim] written from `starts` on."""
    return place.op("TensorScatter", past, update, run.starts, part=part, axis=2, mode="linear")


def merge(rewriter: Rewriter, place: Place, y: ir.Value) -> ir.Value:
    """[batch, heads, n, dim] -> [batch, n, heads dim]."""
    merged = rewriter.constant("heads.merged", np.array([0, 0, -1], np.int64))
    return place.op("Reshape", place.op("Transpose", y, part="together", perm=[0, 2, 1, 3]), merged, part="merged")


class Masks:
    """What each query sees, [batch, 1, n, capacity] bool: one mask for each width of window, shared by the layers."""

    def __init__(self, rewriter: Rewriter, run: RunInputs) -> None:
        self._rewriter, self._run = rewriter, run
        self._made: dict[int, ir.Value] = {}

    def of(self, place: Place, window: int) -> ir.Value:
        """The mask, made before the node of `place` if it is the first to need it; a `window` of 0 is none."""
        if window not in self._made:
            keys = self._rewriter.constant("keys", np.arange(self._run.capacity, dtype=np.int64).reshape(1, 1, 1, -1))
            axes = self._rewriter.constant("axes.1.3", np.array([1, 3], np.int64))
            now = place.op("Unsqueeze", self._run.positions, axes, part=f"now.{window}")
            mask = place.op("LessOrEqual", keys, now, part=f"mask.{window}")
            if window:
                width = self._rewriter.constant(f"window.{window}", np.array(window, np.int64))
                oldest = place.op("Sub", now, width, part=f"oldest.{window}")
                mask = place.op("And", mask, place.op("Greater", keys, oldest, part=f"recent.{window}"), part=f"both.{window}")
            self._made[window] = mask
        return self._made[window]
