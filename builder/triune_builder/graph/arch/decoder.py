"""The dense decoder that Llama, Mistral and Qwen share: pre-norm, grouped-query attention, gated MLP. Reads no config key
that only some of them have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ...errors import BuildError
from ..blocks import attention, gated_mlp
from ..cache import KeyValue, key_value_tensors
from ..config import COMMON, ModelConfig, common_fields
from ..keys import Key, count
from ..ops import Graph, linear, rms_norm
from ..windows import Windows
from .promised import Promised

# What all of them read, with what Llama means where it is silent.
KEYS: dict[str, Key] = COMMON | {
    "intermediate_size": Key(kind=count()),
    "num_key_value_heads": Key(kind=count(), missing=None, null=None),  # as many as heads
    "head_dim": Key(kind=count(), missing=None, null=None),  # the hidden size shared among the heads
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_HEADS_HINT = "correct num_attention_heads, num_key_value_heads or head_dim in config.json"


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What config.json says of such a model, and in what its members differ: windows, normalized heads, biases."""

    intermediate_size: int
    num_key_value_heads: int
    head_dim: int
    windows: tuple[int | None, ...]  # of each layer, how many positions a query sees; None: all
    head_norms: bool  # each query and key head is normalized before it is rotated
    biases: frozenset[str]  # of `ATTENTION` and promised.MLP, those that have a bias; the others have none

    @property
    def cache(self) -> tuple[CacheTensor, ...]:
        """What a slot of the KV cache holds."""
        return key_value_tensors(self.windows, self.num_key_value_heads, self.head_dim)


def make(
    config: Mapping[str, Any],
    said: Mapping[str, Any],
    remarks: tuple[str, ...],
    *,
    windows: Windows,
    biases: Iterable[str],
    head_norms: bool = False,
) -> Config:
    """The config of `said`, which an architecture read of `config` by its own `KEYS`.

    Raises:
        BuildError: heads that do not fit together, or a rope scaling that is not understood.
    """
    heads, hidden = said["num_attention_heads"], said["hidden_size"]
    kv_heads = said["num_key_value_heads"] or heads
    if said["head_dim"] is None and hidden % heads:
        raise BuildError(f"config.json: hidden_size {hidden} is not shared evenly by {heads} heads", _HEADS_HINT)
    if heads % kv_heads:
        silent = "" if "num_key_value_heads" in config else " (config.json is silent on those)"
        raise BuildError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly{silent}", _HEADS_HINT)
    dim = said["head_dim"] or hidden // heads
    fields = common_fields(config, said, rope_dim=dim)
    return Config(
        **fields,
        remarks=(*remarks, *fields["rope"].remarks),
        intermediate_size=said["intermediate_size"],
        num_key_value_heads=kv_heads,
        head_dim=dim,
        windows=windows,
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
