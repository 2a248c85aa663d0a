"""DeepSeek-V3 (R1, R1-0528, V3): multi-head latent attention, and a mixture of experts in all but the first layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import BuildError
from ..blocks import gated_mlp
from ..cache import Latent
from ..ops import Graph, linear, rms_norm
from .deepseek_config import INNER_NORM_EPS, Config


def forward(
    g: Graph,
    cfg: Config,
    input_ids: ir.Value,
    total_lengths: ir.Value,
    logit_positions: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    cache: Sequence[Latent],
    *,
    feeds_mtp: bool = False,
) -> tuple[ir.Value, list[Latent]]:
    """Logits [batch, m, vocab] of the positions `logit_positions` [m], and the grown cache.

    Args:
        feeds_mtp: also output `hidden` [batch, n, hidden], the last norm's result at every position.
    """
    present: list[Latent] = []
    last = cfg.num_hidden_layers - 1
    with g.scope("model"):
        embeddings = g.weight("embed_tokens.weight")
        x = g.op("Gather", embeddings, input_ids, axis=0)
        for i in range(cfg.num_hidden_layers):
            wanted = logit_positions if i == last and not feeds_mtp else None
            with g.scope(f"layers.{i}"):
                x, latent = _layer(g, cfg, i, x, cache[i], total_lengths, tables, wanted)
                present.append(latent)
        x = rms_norm(g, x, "norm", cfg.rms_norm_eps)
        if feeds_mtp:
            g.outputs["hidden"] = x
            x = g.op("Gather", x, logit_positions, axis=1)
        for i in range(cfg.num_nextn_predict_layers):
            g.leave(f"layers.{cfg.num_hidden_layers + i}")
    return _head(g, cfg, x), present


def mtp_forward(
    g: Graph,
    cfg: Config,
    hidden: ir.Value,
    input_ids: ir.Value,
    total_lengths: ir.Value,
    logit_positions: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    cache: Sequence[Latent],
) -> tuple[ir.Value, list[Latent]]:
    """The first layer of multi-token prediction (DeepSeek-V3, section 2.2): logits of the token after `input_ids`.

    It joins what the model (or this layer, for a further token) made of each position with the token that follows there.
    Outputs `next_hidden`, from which it can predict a further token. Embedding and head are the model's: the copies that
    checkpoints hold are the same numbers.

    Args:
        hidden: [batch, n, hidden], as `forward` outputs it.
        input_ids: [batch, n], of each position the token that follows.
    """
    layer = f"layers.{cfg.num_hidden_layers}"
    with g.scope("model"):
        x = g.op("Gather", g.weight("embed_tokens.weight"), input_ids, axis=0)
        with g.scope(layer):
            joined = [rms_norm(g, v, name, cfg.rms_norm_eps) for v, name in ((x, "enorm"), (hidden, "hnorm"))]
            x = linear(g, g.op("Concat", *joined, axis=-1), "eh_proj")
            x, latent = _layer(g, cfg, cfg.num_hidden_layers, x, cache[0], total_lengths, tables, None)
            x = rms_norm(g, x, "shared_head.norm", cfg.rms_norm_eps)
            g.leave("embed_tokens")
            g.leave("shared_head.head")
    g.outputs["next_hidden"] = x
    return _head(g, cfg, g.op("Gather", x, logit_positions, axis=1)), [latent]


def _head(g: Graph, cfg: Config, x: ir.Value) -> ir.Value:
    if not cfg.tie_word_embeddings:
        return linear(g, x, "lm_head")
    with g.scope("model"):
        return g.block("Linear", x, g.weight("embed_tokens.weight"))[0]


def _layer(
    g: Graph,
    cfg: Config,
    number: int,
    x: ir.Value,
    past: Latent,
    total_lengths: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    positions: ir.Value | None,
) -> tuple[ir.Value, Latent]:
    """One layer; behind its attention only `positions` matter, where they are given."""
    h = rms_norm(g, x, "input_layernorm", cfg.rms_norm_eps)
    h, latent = _attention(g, cfg, h, past, total_lengths, tables)
    if positions is not None:
        x, h = g.op("Gather", x, positions, axis=1), g.op("Gather", h, positions, axis=1)
    x = g.op("Add", x, h)
    h = rms_norm(g, x, "post_attention_layernorm", cfg.rms_norm_eps)
    y = _mixture(g, cfg, h) if cfg.has_experts(number) else gated_mlp(g, h, "mlp")
    return g.op("Add", x, y), latent


def _attention(
    g: Graph, cfg: Config, x: ir.Value, past: Latent, total_lengths: ir.Value, tables: tuple[ir.Value, ir.Value]
) -> tuple[ir.Value, Latent]:
    """Multi-head latent attention (DeepSeek-V2, section 2.1); the products that read `x` are one.

    Its two norms have an epsilon of their own, as in DeepSeek's own code and in transformers.
    """
    heads, nope, lora, rope = cfg.num_attention_heads, cfg.qk_nope_head_dim, cfg.kv_lora_rank, cfg.qk_rope_head_dim
    with g.scope("self_attn"):
        first = "q_proj" if cfg.q_lora_rank is None else "q_a_proj"
        query_size = heads * (nope + rope) if cfg.q_lora_rank is None else cfg.q_lora_rank
        down = _down_projections(g, x, first)
        query, latent, key_rope = g.ops("Split", down, g.constant([query_size, lora, rope]), outputs=3, axis=-1)
        if cfg.q_lora_rank is not None:
            query = linear(g, rms_norm(g, query, "q_a_layernorm", INNER_NORM_EPS), "q_b_proj")
        latent = rms_norm(g, latent, "kv_a_layernorm", INNER_NORM_EPS)
        key_up, value_up = _up_projections(g, cfg)
        y, grown = g.block(
            "LatentAttention", query, latent, key_rope, key_up, value_up, past.latent, total_lengths, *tables,
            outputs=2, scale=cfg.softmax_scale, interleaved=int(cfg.rope_interleave),
        )  # fmt: skip
        return linear(g, y, "o_proj"), Latent(grown)


def _down_projections(g: Graph, x: ir.Value, first: str) -> ir.Value:
    """The query's (first) product and the latent's as one; with attention_bias, a full-rank q_proj alone has no bias."""
    names = first, "kv_a_proj_with_mqa"
    if g.has(f"{names[1]}.bias") and not g.has(f"{first}.bias"):
        return g.op("Concat", linear(g, x, first), linear(g, x, names[1]), axis=-1)
    return linear(g, x, *names, fused_as="down_proj")


def _up_projections(g: Graph, cfg: Config) -> tuple[ir.Value, ir.Value]:
    """The two halves of kv_b_proj, head by head: keys' [heads, nope, lora] and values' [heads, lora, v]."""
    heads, nope, lora, v = cfg.num_attention_heads, cfg.qk_nope_head_dim, cfg.kv_lora_rank, cfg.v_head_dim
    shape = g.weight_shape("kv_b_proj.weight")
    if shape != (heads * (nope + v), lora):
        raise BuildError(
            f"{g.path('kv_b_proj.weight')} is {shape}; config.json makes it {(heads * (nope + v), lora)}",
            "is this checkpoint of another model than its config.json says?",
        )

    def keys(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return weight.reshape(heads, nope + v, lora)[:, :nope]

    def values(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return weight.reshape(heads, nope + v, lora)[:, nope:].swapaxes(1, 2)

    return (
        g.derived_weight("kv_b_proj.weight", "key_up", (heads, nope, lora), keys),
        g.derived_weight("kv_b_proj.weight", "value_up", (heads, lora, v), values),
    )


def _mixture(g: Graph, cfg: Config, x: ir.Value) -> ir.Value:
    """The chosen experts' weighted sum, and the shared experts that every token goes through."""
    with g.scope("mlp"):
        logits = linear(g, x, "gate")
        bias = "gate.e_score_correction_bias"
        weights, indices = g.block(
            "Route",
            logits,
            g.weight(bias) if g.has(bias) else g.constant(np.zeros(cfg.n_routed_experts), np.float32),
            outputs=2,
            groups=cfg.n_group,
            top_groups=cfg.topk_group,
            top_k=cfg.num_experts_per_tok,
            softmax=0,
            normalize=int(cfg.norm_topk_prob),
            factor=float(cfg.routed_scaling_factor),
        )
        with g.scope("experts"):
            numbers = [str(i) for i in range(cfg.n_routed_experts)]
            gate_up = g.stacked_weights(numbers, "gate_proj.weight", "up_proj.weight", name="gate_up_proj.weight")
            down = g.stacked_weights(numbers, "down_proj.weight", name="down_proj.weight")
            y = g.block("Experts", x, weights, indices, gate_up, down)[0]
        return g.op("Add", y, gated_mlp(g, x, "shared_experts")) if cfg.n_shared_experts else y
