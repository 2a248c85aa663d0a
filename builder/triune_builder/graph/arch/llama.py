"""Llama and its descendants (SmolLM2, R1-Distill-Llama): pre-norm, grouped-query attention, gated MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import onnx_ir as ir

from ..blocks import attention, gated_mlp
from ..cache import KeyValue
from ..config import check_config
from ..ops import Graph, linear, rms_norm
from ..rope import Rope, read_rope

_READS = frozenset(
    """
    head_dim hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps
    rope_parameters rope_scaling rope_theta tie_word_embeddings vocab_size
    """.split()
)
_FIXED = {  # biases need no key: a weight is in the checkpoint or it is not
    "hidden_act": ("silu",),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What this architecture reads of config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: Rope

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        check_config(config, reads=_READS, fixed=_FIXED)
        heads = config["num_attention_heads"]
        dim = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=dim,
            vocab_size=config["vocab_size"],
            rms_norm_eps=config["rms_norm_eps"],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            rope=read_rope(config, dim),
        )


def forward(
    g: Graph,
    cfg: Config,
    input_ids: ir.Value,
    total_lengths: ir.Value,
    logit_positions: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    cache: Sequence[KeyValue],
) -> tuple[ir.Value, list[KeyValue]]:
    """Logits [batch, m, vocab] of the positions `logit_positions` [m], and the grown cache."""
    present: list[KeyValue] = []
    with g.scope("model"):
        embeddings = g.weight("embed_tokens.weight")
        x = g.op("Gather", embeddings, input_ids, axis=0)
        for i in range(cfg.num_hidden_layers):
            with g.scope(f"layers.{i}"):
                h = rms_norm(g, x, "input_layernorm", cfg.rms_norm_eps)
                h, kv = attention(
                    g, h, cache[i], total_lengths, tables, "self_attn", cfg.num_attention_heads, cfg.num_key_value_heads
                )
                if i == cfg.num_hidden_layers - 1:  # from here on only these positions matter
                    x, h = g.op("Gather", x, logit_positions, axis=1), g.op("Gather", h, logit_positions, axis=1)
                x = g.op("Add", x, h)
                h = rms_norm(g, x, "post_attention_layernorm", cfg.rms_norm_eps)
                x = g.op("Add", x, gated_mlp(g, h, "mlp"))
                present.append(kv)
        x = rms_norm(g, x, "norm", cfg.rms_norm_eps)
    logits = g.block("Linear", x, embeddings)[0] if cfg.tie_word_embeddings else linear(g, x, "lm_head")
    return logits, present
