"""What config.json says of a DeepSeek-V3 model; see deepseek_v3.py for what it computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, Self

from triune_runtime.manifest import CacheTensor

from ...errors import BuildError
from ..cache import latent_tensors
from ..config import COMMON, ModelConfig, common_fields, positions_key, read_config
from ..keys import FLAG, Key, count, one_of, shown
from ..keys import number as a_number
from ..rope import YarnScaling
from .promised import Promised

_MOST_EXPERTS = 1 << 14
_SIZE_OF_A_HEAD = count(most=1 << 16)
KEYS: dict[str, Key] = COMMON | positions_key(4096) | {
    "intermediate_size": Key(kind=count()),
    "moe_intermediate_size": Key(kind=count(), missing=2048),
    "attention_bias": Key(kind=FLAG, missing=False),
    "rope_interleave": Key(kind=FLAG, missing=True, null=False),
    "q_lora_rank": Key(kind=count(), missing=1536, null=None),
    "kv_lora_rank": Key(kind=count(), missing=512),
    "qk_nope_head_dim": Key(kind=_SIZE_OF_A_HEAD, missing=128),
    "qk_rope_head_dim": Key(kind=_SIZE_OF_A_HEAD, missing=64),
    "v_head_dim": Key(kind=_SIZE_OF_A_HEAD, missing=128),
    "first_k_dense_replace": Key(kind=count(least=0), missing=3),
    "moe_layer_freq": Key(kind=count(), missing=1, null=1),
    "n_routed_experts": Key(kind=count(most=_MOST_EXPERTS), missing=256),
    "n_shared_experts": Key(kind=count(least=0, most=_MOST_EXPERTS), missing=1, null=0),
    "num_experts_per_tok": Key(kind=count(), missing=8),
    "n_group": Key(kind=count(), missing=8, null=1),
    "topk_group": Key(kind=count(), missing=4, null=1),
    "norm_topk_prob": Key(kind=FLAG, missing=True, null=False),
    "routed_scaling_factor": Key(kind=a_number(least=0), missing=2.5),
    "num_nextn_predict_layers": Key(kind=count(least=0, most=64), missing=1, null=0),
    "scoring_func": Key(kind=one_of("sigmoid"), missing="sigmoid"),
    "topk_method": Key(kind=one_of("noaux_tc"), missing="noaux_tc"),
}  # fmt: skip
# What follows from the keys above: read only to be compared. And what is of training and of placement.
_DERIVED = {"num_key_value_heads": count(), "head_dim": count(), "qk_head_dim": count()}
_HARMLESS = frozenset("aux_loss_alpha ep_size output_router_logits router_aux_loss_coef seq_aux".split())
_ALIASES = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}
INNER_NORM_EPS = 1e-6  # of the two norms inside of latent attention, whatever rms_norm_eps says


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What this architecture reads of config.json."""

    intermediate_size: int
    moe_intermediate_size: int
    attention_bias: bool
    rope_interleave: bool
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    first_k_dense_replace: int
    moe_layer_freq: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float
    num_nextn_predict_layers: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """What config.json says.

        Raises:
            BuildError: a key that may change the maths is not understood, or keys contradict each other.
        """
        if config.get("scoring_func") == "softmax":
            raise BuildError(
                "config.json: scoring_func = 'softmax' (only 'sigmoid' is built): transformers' deepseek_v3 computes a sigmoid "
                "whatever the key says, other programs a softmax",
                'write "scoring_func": "sigmoid" if the model is right in transformers',
            )
        own = _with_aliases({key: value for key, value in config.items() if key not in _HARMLESS})
        said, remarks = read_config({k: v for k, v in own.items() if k not in _DERIVED}, KEYS)
        heads, nope, rope = (said[name] for name in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
        derived = {"num_key_value_heads": heads, "head_dim": rope, "qk_head_dim": nope + rope}
        wrong = [f"{key} = {shown(own[key])} (only {value} is built)"
                 for key, value in derived.items() if own.get(key) not in (None, value)]  # fmt: skip
        if wrong:
            raise BuildError(
                f"config.json has keys that may change the maths: {'; '.join(wrong)}", "correct them in config.json"
            )
        fields = common_fields(config, said, rope_dim=rope)
        names = {f.name for f in fields_of(cls)} - fields.keys() - {"remarks"}
        cfg = cls(**fields, **{name: said[name] for name in names}, remarks=(*remarks, *fields["rope"].remarks))
        cfg._check_groups()
        return cfg

    def settle(self, stored: Collection[str]) -> Self:
        """This config with what the names of the `stored` weights decide: the layers of multi-token prediction, which
        transformers promises by default and never saves; and whether `moe_layer_freq`, which it ignores, counts."""
        cfg, prefix = self, "model.layers."
        numbers = {name[len(prefix) :].partition(".")[0] for name in stored if name.startswith(prefix)}
        last, layers = self.num_hidden_layers, self.num_nextn_predict_layers
        there = next((n for n in range(layers) if str(last + n) not in numbers), layers)
        if there < layers:
            cfg = replace(cfg, num_nextn_predict_layers=there, remarks=(
                *cfg.remarks,
                f"config.json promises {layers} of the layers that predict further tokens (num_nextn_predict_layers), the "
                f"checkpoint has the weights of {there or 'none'}: built with {there or 'none'}",
            ))  # fmt: skip
        mixed = range(self.first_k_dense_replace, last)
        if self.moe_layer_freq > 1 and all(f"{prefix}{i}.mlp.gate.weight" in stored for i in mixed):
            cfg = replace(cfg, moe_layer_freq=1, remarks=(
                *cfg.remarks,
                f"config.json: moe_layer_freq = {self.moe_layer_freq} is ignored, as transformers does: the checkpoint has "
                "experts in every layer behind the first dense ones",
            ))  # fmt: skip
        return cfg

    def _check_groups(self) -> None:
        if self.num_hidden_layers * self.n_routed_experts > _MOST_EXPERTS * 16:
            raise BuildError(
                f"config.json: {self.num_hidden_layers} layers of {self.n_routed_experts} experts are more than can be built",
                "correct num_hidden_layers and n_routed_experts",
            )
        each, rest = divmod(self.n_routed_experts, self.n_group)
        if rest or not 1 <= self.topk_group <= self.n_group or not 1 <= self.num_experts_per_tok <= self.topk_group * each:
            raise BuildError(
                f"{self.num_experts_per_tok} of {self.n_routed_experts} experts cannot be chosen from {self.topk_group} "
                f"of {self.n_group} groups",
                "correct n_routed_experts, n_group, topk_group and num_experts_per_tok in config.json",
            )

    @property
    def latent_dim(self) -> int:
        """Numbers of a token in a layer's cache."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def cache(self) -> tuple[CacheTensor, ...]:
        """What a slot of the KV cache holds."""
        return latent_tensors(range(self.num_hidden_layers), self.latent_dim)

    @property
    def mtp_prefix(self) -> str:
        """What the names of the first MTP layer's weights begin with."""
        return f"model.layers.{self.num_hidden_layers}."

    @property
    def mtp_cache(self) -> tuple[CacheTensor, ...]:
        """The same of the first MTP layer."""
        return latent_tensors(range(self.num_hidden_layers, self.num_hidden_layers + 1), self.latent_dim)

    @property
    def softmax_scale(self) -> float:
        scaling = self.rope.scaling
        factor = scaling.softmax_factor if isinstance(scaling, YarnScaling) else 1.0
        return factor / math.sqrt(self.qk_nope_head_dim + self.qk_rope_head_dim)

    def has_experts(self, layer: int) -> bool:
        """Whether that layer is a mixture of experts; the others are dense."""
        return layer >= self.first_k_dense_replace and layer % self.moe_layer_freq == 0


def _with_aliases(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config under the names that `KEYS` has.

    Raises:
        BuildError: two names of one thing have different values.
    """
    renamed = {key: value for key, value in config.items() if key not in _ALIASES}
    for other, name in _ALIASES.items():
        if other in config and name in config and config[other] != config[name]:
            raise BuildError(
                f"config.json: {name} = {shown(config[name])} and {other} = {shown(config[other])} are two names of one thing",
                f"remove {other}, or correct it",
            )
        if other in config:
            renamed.setdefault(name, config[other])
    return renamed


def promises(cfg: Config) -> Promised:
    """The weights that a checkpoint of that config.json holds, those of layers that predict further tokens included."""
    promised = Promised.around_layers(cfg)
    for number in range(cfg.num_hidden_layers + cfg.num_nextn_predict_layers):
        layer = f"model.layers.{number}"
        promised.layer_norms(cfg.hidden_size, layer)
        _promise_attention(promised, cfg, f"{layer}.self_attn")
        if cfg.has_experts(number):
            _promise_mixture(promised, cfg, f"{layer}.mlp")
        else:
            promised.gated_mlp(f"{layer}.mlp", cfg.hidden_size, cfg.intermediate_size)
        if number >= cfg.num_hidden_layers:
            _promise_predictor(promised, cfg, layer)
    return promised


def _promise_attention(promised: Promised, cfg: Config, name: str) -> None:
    hidden, heads, lora, bias = cfg.hidden_size, cfg.num_attention_heads, cfg.kv_lora_rank, cfg.attention_bias
    queries = heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim)
    if cfg.q_lora_rank is None:
        promised.linear(f"{name}.q_proj", queries, hidden)
    else:
        promised.linear(f"{name}.q_a_proj", cfg.q_lora_rank, hidden, bias=bias)
        promised.vectors(cfg.q_lora_rank, f"{name}.q_a_layernorm.weight")
        promised.linear(f"{name}.q_b_proj", queries, cfg.q_lora_rank)
    promised.linear(f"{name}.kv_a_proj_with_mqa", lora + cfg.qk_rope_head_dim, hidden, bias=bias)
    promised.vectors(lora, f"{name}.kv_a_layernorm.weight")
    promised.linear(f"{name}.kv_b_proj", heads * (cfg.qk_nope_head_dim + cfg.v_head_dim), lora)
    promised.linear(f"{name}.o_proj", hidden, heads * cfg.v_head_dim, bias=bias)


def _promise_mixture(promised: Promised, cfg: Config, name: str) -> None:
    hidden, inner = cfg.hidden_size, cfg.moe_intermediate_size
    promised.required[f"{name}.gate.weight"] = (cfg.n_routed_experts, hidden)
    promised.optional[f"{name}.gate.e_score_correction_bias"] = (cfg.n_routed_experts,)
    for expert in range(cfg.n_routed_experts):
        promised.gated_mlp(f"{name}.experts.{expert}", hidden, inner)
    if cfg.n_shared_experts:
        promised.gated_mlp(f"{name}.shared_experts", hidden, inner * cfg.n_shared_experts)


def _promise_predictor(promised: Promised, cfg: Config, name: str) -> None:
    """What a layer of multi-token prediction has besides a layer's own; table and head may be copies of the model's."""
    hidden = cfg.hidden_size
    promised.vectors(hidden, f"{name}.enorm.weight", f"{name}.hnorm.weight", f"{name}.shared_head.norm.weight")
    promised.linear(f"{name}.eh_proj", hidden, 2 * hidden)
    copies = (f"{name}.embed_tokens.weight", f"{name}.shared_head.head.weight")
    promised.optional |= dict.fromkeys(copies, (cfg.vocab_size, hidden))
