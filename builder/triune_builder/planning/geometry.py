"""A model as a planner sees it: its weights, alike ones counted together, and how each is split over GPUs. Reads no weight."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from triune_runtime.manifest import CacheTensor

from ..errors import BuildError
from ..estimate import kind_of
from ..graph.arch import find_architecture
from ..lengths import own_length
from ..targets.sizes import Kind
from . import mixtures

# How tensor parallelism cuts a weight: not at all, or by attention heads, key-value heads, the MLP's inner width, the
# vocabulary; or experts, which expert parallelism hands out whole.
Split = Literal["whole", "heads", "kv", "inner", "vocab", "expert"]
_MOST = 1_000_000  # layers times experts: each of their weights is named
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.\d+\.")
_BY_NAME: tuple[tuple[str, Split, int], ...] = (  # what a name contains, the split, the axis
    ("embed_tokens.", "vocab", 0), ("lm_head.", "vocab", 0), ("shared_head.head.", "vocab", 0),
    (".q_proj.", "heads", 0), (".q_b_proj.", "heads", 0), (".kv_b_proj.", "heads", 0), (".o_proj.weight", "heads", 1),
    (".k_proj.", "kv", 0), (".v_proj.", "kv", 0),
    (".gate_proj.", "inner", 0), (".up_proj.", "inner", 0), (".down_proj.weight", "inner", 1),
)  # fmt: skip  # all else is whole on each rank: norms, routers, latent down-projections, biases of what is summed


@dataclass(frozen=True)
class Block:
    """Weights that are alike but for their names' numbers."""

    name: str  # of the first
    kind: Kind
    shape: tuple[int, ...]
    split: Split
    axis: int = 0
    count: int = 1

    @property
    def size(self) -> int:
        return self.count * math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """All that is planned with."""

    model_type: str
    hidden: int
    heads: int
    kv_heads: int  # 1 where all heads share a latent
    queries: int  # numbers of all query heads
    vocab: int
    tied: bool
    layers: tuple[tuple[Block, ...], ...]
    predictors: tuple[tuple[Block, ...], ...]  # layers that predict further tokens
    table: Block
    head: Block | None  # None: it is the table
    last: tuple[Block, ...]  # the last norm
    cache: tuple[CacheTensor, ...]  # of the layers, float32
    latent: bool
    experts: int  # routed ones of a layer; 0: none
    active: int  # of these, for a token
    inner: int  # widest gated product of a token in a layer, all chosen experts together
    pair_flops: tuple[int, int]  # of a layer, for a query and a key: while a prompt is computed, and a token at a time
    longest: int | None  # tokens that the model is made for
    fp8: bool  # as it is stored

    @property
    def blocks(self) -> list[Block]:
        """All that is computed for a token, without the layers that predict further ones."""
        around = [self.table, *self.last, *([self.head] if self.head else [])]
        return [*around, *(block for layer in self.layers for block in layer)]

    @property
    def parameters(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def spare_parameters(self) -> int:
        """Of the layers that predict further tokens."""
        return sum(block.size for layer in self.predictors for block in layer)

    @property
    def active_parameters(self) -> int:
        """Of what one token meets: all but the table's rows and the experts that are not chosen."""
        table = 0 if self.tied else self.table.size
        idle = sum(b.size for b in self.blocks if b.split == "expert") * (1 - self.active / max(self.experts, 1))
        return round(self.parameters - table - idle)

    @property
    def windows(self) -> bool:
        return any(tensor.window is not None for tensor in self.cache)


def geometry_of(config: Mapping[str, Any], stored: Collection[str] = ()) -> Geometry:
    """The geometry of the model of that config.json.

    Args:
        stored: names of the weights, where headers are there: they decide what config.json leaves open.

    Raises:
        BuildError: an architecture that the planner does not know, or a config.json that is not understood.
    """
    found: dict[str, Any]
    if config.get("model_type") == mixtures.MODEL_TYPE:
        mixture = mixtures.read(config)
        cfg, said = mixture.dense, mixture.said
        experts, active = said["num_experts"], said["num_experts_per_tok"]
        _check_size(cfg.num_hidden_layers, experts)
        promised = mixtures.promises(mixture)
        found = {"experts": experts, "active": active, "inner": active * said["moe_intermediate_size"]}
    else:
        architecture = find_architecture(config.get("model_type"), (mixtures.MODEL_TYPE,))
        cfg = architecture.read(config)
        cfg = architecture.settle(cfg, stored) if stored else cfg
        found = {"experts": getattr(cfg, "n_routed_experts", 0), "active": getattr(cfg, "num_experts_per_tok", 0)}
        _check_size(cfg.num_hidden_layers, found["experts"])
        promised = architecture.promises(cfg)
        chosen = found["active"] + getattr(cfg, "n_shared_experts", 0)
        found["inner"] = chosen * cfg.moe_intermediate_size if found["experts"] else cfg.intermediate_size
    weights = dict(promised.required) | {
        name: shape for name, shape in promised.optional.items()
        if (name in stored if stored else not (name == "lm_head.weight" and cfg.tie_word_embeddings))
    }  # fmt: skip
    return _geometry(config, cfg, weights, found)


def _check_size(layers: int, experts: int) -> None:
    if layers * max(experts, 1) > _MOST:
        raise BuildError(
            f"{layers:,} layers with {experts:,} experts each; the planner looks at {_MOST:,} of both multiplied",
            "is it the config.json of this model? Or correct --layers and --experts",
        )


def _geometry(
    config: Mapping[str, Any], cfg: Any, weights: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]
) -> Geometry:
    count = cfg.num_hidden_layers
    layers: dict[int, Counter[Block]] = {}
    outside: dict[str, Block] = {}
    for name, shape in weights.items():
        block = _block(name, shape)
        if match := _LAYER.match(name):
            layers.setdefault(int(match[1]), Counter())[block] += 1
        else:
            outside[name] = block
    gathered = {
        number: tuple(Block(b.name, b.kind, b.shape, b.split, b.axis, times) for b, times in blocks.items())
        for number, blocks in layers.items()
    }
    latent = hasattr(cfg, "kv_lora_rank")
    heads = cfg.num_attention_heads
    if latent:
        expanded = heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim + cfg.v_head_dim)
        queries = heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim)
        pairs = 2 * expanded, 2 * heads * (2 * cfg.kv_lora_rank + cfg.qk_rope_head_dim)  # absorbed, token by token
    else:
        queries = heads * cfg.head_dim
        pairs = 4 * queries, 4 * queries
    return Geometry(
        model_type=str(config.get("model_type")),
        hidden=cfg.hidden_size,
        heads=heads,
        kv_heads=1 if latent else cfg.num_key_value_heads,
        queries=queries,
        vocab=cfg.vocab_size,
        tied=bool(cfg.tie_word_embeddings),
        layers=tuple(gathered[i] for i in range(count)),
        predictors=tuple(gathered[i] for i in sorted(gathered) if i >= count),
        table=outside["model.embed_tokens.weight"],
        head=outside.get("lm_head.weight"),
        last=(outside["model.norm.weight"],),
        cache=tuple(cfg.cache),
        latent=latent,
        pair_flops=pairs,
        longest=own_length(config, cfg.rope.longest),
        fp8=(config.get("quantization_config") or {}).get("quant_method") == "fp8",
        **found,
    )


def _block(name: str, shape: tuple[int, ...]) -> Block:
    inside = _EXPERT.sub(".experts.0.", _LAYER.sub("model.layers.0.", name))
    whole: tuple[Split, int] = ("whole", 0)
    split, axis = next(((split, axis) for part, split, axis in _BY_NAME if part in f".{inside}"), whole)
    return Block(inside, kind_of(name, shape), shape, "expert" if _EXPERT.search(name) else split, axis)
