"""What config.json says of a DeepSeek-V3 model; see deepseek_v3.py for what it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from triune_runtime.manifest import CacheTensor

from ...errors import BuildError
from ..cache import latent_tensors
from ..config import ModelConfig, check_config, common_keys
from ..rope import YarnScaling
from .promised import Promised

NEEDS = frozenset(
    """
    first_k_dense_replace intermediate_size kv_lora_rank moe_intermediate_size n_routed_experts num_experts_per_tok
    qk_nope_head_dim qk_rope_head_dim v_head_dim
    """.split()
)
_READS = NEEDS | frozenset(
    """
    head_dim moe_layer_freq n_group n_shared_experts norm_topk_prob num_key_value_heads num_mtp_layers
    num_nextn_predict_layers q_lora_rank qk_head_dim rope_interleave routed_scaling_factor scoring_func topk_group
    """.split()
)
_HARMLESS = """
    aux_loss_alpha ep_size num_local_experts output_router_logits quantization_config router_aux_loss_coef seq_aux
    """.split()  # training, placement, and how the checkpoint stores its weights
_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "pretraining_tp": (1,),
    "attention_bias": (True, False),
    "topk_method": ("noaux_tc",),
}


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What this architecture reads of config.json."""

    intermediate_size: int
    moe_intermediate_size: int
    attention_bias: bool  # the checkpoint must hold biases; else it may
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
    scoring_func: str
    num_nextn_predict_layers: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        heads, nope, rope = (config.get(name, 0) for name in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
        derived = {
            "num_key_value_heads": (heads, None),
            "head_dim": (rope, None),
            "qk_head_dim": (nope + rope, None),
            "scoring_func": ("sigmoid", "softmax"),
        }
        understood = {key: value for key, value in config.items() if key not in _HARMLESS}
        check_config(understood, reads=_READS, needs=NEEDS, fixed=_FIXED | derived)
        cfg = cls(
            **common_keys(config, rope_dim=rope),
            intermediate_size=config["intermediate_size"],
            moe_intermediate_size=config["moe_intermediate_size"],
            attention_bias=config.get("attention_bias", False),
            rope_interleave=config.get("rope_interleave", True),
            q_lora_rank=config.get("q_lora_rank"),
            kv_lora_rank=config["kv_lora_rank"],
            qk_nope_head_dim=nope,
            qk_rope_head_dim=rope,
            v_head_dim=config["v_head_dim"],
            first_k_dense_replace=config["first_k_dense_replace"],
            moe_layer_freq=config.get("moe_layer_freq", 1),
            n_routed_experts=config["n_routed_experts"],
            n_shared_experts=config.get("n_shared_experts") or 0,
            num_experts_per_tok=config["num_experts_per_tok"],
            n_group=config.get("n_group") or 1,
            topk_group=config.get("topk_group") or 1,
            norm_topk_prob=config.get("norm_topk_prob", True),
            routed_scaling_factor=config.get("routed_scaling_factor", 1.0),
            scoring_func=config.get("scoring_func", "sigmoid"),
            num_nextn_predict_layers=config.get("num_nextn_predict_layers", config.get("num_mtp_layers")) or 0,
        )
        cfg._check_groups()
        return cfg

    def _check_groups(self) -> None:
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
