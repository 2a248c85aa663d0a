"""The dense decoder that Llama, Mistral and Qwen share: pre-norm, grouped-query attention, gated MLP. Reads no config key
that only some of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ..blocks import attention, gated_mlp
from ..cache import KeyValue, key_value_tensors
from ..ops import Graph, linear, rms_norm
from ..rope import Rope, read_rope

READS = frozenset(
    """
    head_dim hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps
    rope_parameters rope_scaling rope_theta tie_word_embeddings vocab_size
    """.split()
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What config.json says of such a model, and the two things in which its members differ: windows and normalized heads."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: Rope
    windows: tuple[int | None, ...]  # of each layer, how many positions a query sees; None: all
    head_norms: bool  # each query and key head is normalized before it is rotated

    @property
    def cache(self) -> tuple[CacheTensor, ...]:
        """What a slot of the KV cache holds."""
        return key_value_tensors(self.windows, self.num_key_value_heads, self.head_dim)


def read(config: Mapping[str, Any], *, windows: Sequence[int | None], head_norms: bool = False) -> Config:
    """The keys `READS`; an architecture checks the others.

    Raises:
        BuildError: a rope scaling that is not understood.
    """
    heads = config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    return Config(
        hidden_size=config["hidden_size"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=dim,
        vocab_size=config["vocab_size"],
        rms_norm_eps=config["rms_norm_eps"],
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        rope=read_rope(config, dim),
        windows=tuple(windows),
        head_norms=head_norms,
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
        for i, window in enumerate(cfg.windows):
            with g.scope(f"layers.{i}"):
                h = rms_norm(g, x, "input_layernorm", cfg.rms_norm_eps)
                h, kv = attention(
                    g, h, cache[i], total_lengths, tables, "self_attn",
                    heads=cfg.num_attention_heads, kv_heads=cfg.num_key_value_heads, dim=cfg.head_dim,
                    window=window, norm_epsilon=cfg.rms_norm_eps if cfg.head_norms else None,
                )  # fmt: skip
                if i == len(cfg.windows) - 1:  # from here on only these positions matter
                    x, h = g.op("Gather", x, logit_positions, axis=1), g.op("Gather", h, logit_positions, axis=1)
                x = g.op("Add", x, h)
                h = rms_norm(g, x, "post_attention_layernorm", cfg.rms_norm_eps)
                x = g.op("Add", x, gated_mlp(g, h, "mlp"))
                present.append(kv)
        x = rms_norm(g, x, "norm", cfg.rms_norm_eps)
    logits = g.block("Linear", x, embeddings)[0] if cfg.tie_word_embeddings else linear(g, x, "lm_head")
    return logits, present
