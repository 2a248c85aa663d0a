"""How an architecture file says which weights a checkpoint holds: names and shapes, written apart from the graph they check."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Self

from ..config import ModelConfig

Shape = tuple[int, ...]
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass
class Promised:
    """What a checkpoint must hold and what it may."""

    required: dict[str, Shape] = field(default_factory=dict)
    optional: dict[str, Shape] = field(default_factory=dict)

    @classmethod
    def around_layers(cls, cfg: ModelConfig) -> Self:
        """What every decoder has before and behind its layers: table, last norm, head."""
        promised = cls()
        promised.required["model.embed_tokens.weight"] = (cfg.vocab_size, cfg.hidden_size)
        promised.vectors(cfg.hidden_size, "model.norm.weight")
        head = promised.optional if cfg.tie_word_embeddings else promised.required
        head["lm_head.weight"] = (cfg.vocab_size, cfg.hidden_size)
        return promised

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = False) -> None:
        """A weight [rows, columns], and where there is one its bias."""
        self.required[f"{name}.weight"] = (rows, columns)
        if bias:
            self.required[f"{name}.bias"] = (rows,)

    def vectors(self, size: int, *names: str) -> None:
        """Weights of normalizations."""
        self.required.update(dict.fromkeys(names, (size,)))

    def layer_norms(self, size: int, layer: str) -> None:
        """The two norms of a pre-norm layer."""
        self.vectors(size, f"{layer}.input_layernorm.weight", f"{layer}.post_attention_layernorm.weight")

    def gated_mlp(self, name: str, hidden: int, inner: int, *, biases: Collection[str] = ()) -> None:
        """The three products of a gated MLP; `biases` as `MLP` names them."""
        for product in MLP:
            rows, columns = (hidden, inner) if product == "down_proj" else (inner, hidden)
            self.linear(f"{name}.{product}", rows, columns, bias=product in biases)
