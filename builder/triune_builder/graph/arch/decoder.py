"""The dense decoder that Llama, Mistral and Qwen share: pre-norm, grouped-query attention, gated MLP. Reads no config key
that only some of them have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ..blocks import attention, gated_mlp
from ..cache import KeyValue, key_value_tensors
from ..config import ModelConfig, common_keys
from ..ops import Graph, linear, rms_norm
from .promised import Promised

READS = frozenset({"head_dim", "intermediate_size", "num_key_value_heads"})
NEEDS = frozenset({"intermediate_size"})
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What config.json says of such a model, and in what its members differ: windows, normalized heads, biases."""

    intermediate_size: int
    num_key_value_heads: int
    head_dim: int
    windows: tuple[int | None, ...]  # of each layer, how many positions a query sees; None: all
    head_norms: bool  # each query and key head is normalized before it is rotated
    biases: frozenset[str]  # of `ATTENTION` and promised.MLP, those whose bias must be in the checkpoint; the others' may be

    @property
    def cache(self) -> tuple[CacheTensor, ...]:
        """What a slot of the KV cache holds."""
        return key_value_tensors(self.windows, self.num_key_value_heads, self.head_dim)


def read(
    config: Mapping[str, Any], *, windows: Sequence[int | None], biases: Iterable[str], head_norms: bool = False
) -> Config:
    """The keys `READS` and the common ones; an architecture checks all of them and the others.

    Raises:
        BuildError: a rope scaling that is not understood.
    """
    heads = config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    return Config(
        **common_keys(config, rope_dim=dim),
        intermediate_size=config["intermediate_size"],
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=dim,
        windows=tuple(windows),
        head_norms=head_norms,
        biases=frozenset(biases),
    )


def promises(cfg: Config) -> Promised:
    """The weights that a checkpoint of that config.json holds."""
    promised = Promised.around_layers(cfg)
    hidden, queries, keys = cfg.hidden_size, cfg.num_attention_heads * cfg.head_dim, cfg.num_key_value_heads * cfg.head_dim
    shapes = dict(zip(ATTENTION, ((queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)), strict=True))
    for number in range(cfg.num_hidden_layers):
        layer = f"model.layers.{number}"
        promised.layer_norms(hidden, layer)
        for name, (rows, columns) in shapes.items():
            promised.linear(f"{layer}.self_attn.{name}", rows, columns, bias=name in cfg.biases)
        promised.gated_mlp(f"{layer}.mlp", hidden, cfg.intermediate_size, biases=cfg.biases)
        if cfg.head_norms:
            promised.vectors(cfg.head_dim, f"{layer}.self_attn.q_norm.weight", f"{layer}.self_attn.k_norm.weight")
    return promised


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
