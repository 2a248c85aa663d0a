"""What config.json says of a DeepSeek-V3 model; see deepseek_v3.py for what it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from triune_runtime.manifest import CacheTensor

from ...errors import BuildError
from ..cache import latent_tensors
from ..config import check_config
from ..rope import Rope, YarnScaling, read_rope

_READS = frozenset(
    """
    first_k_dense_replace head_dim hidden_size kv_lora_rank moe_layer_freq n_group n_routed_experts n_shared_experts
    norm_topk_prob num_attention_heads num_experts_per_tok num_hidden_layers num_key_value_heads num_mtp_layers
    num_nextn_predict_layers q_lora_rank qk_head_dim qk_nope_head_dim qk_rope_head_dim rms_norm_eps rope_interleave
    rope_parameters rope_scaling rope_theta routed_scaling_factor scoring_func tie_word_embeddings topk_group v_head_dim
    vocab_size
    """.split()
)
_HARMLESS = """
    aux_loss_alpha ep_size intermediate_size moe_intermediate_size num_local_experts output_router_logits quantization_config
    router_aux_loss_coef seq_aux
    """.split()  # training, placement, sizes that the weights themselves have, and how the checkpoint stores them
_FIXED: dict[str, tuple[Any, ...]] = {  # biases need no key: a weight is in the checkpoint or it is not
    "hidden_act": ("silu",),
    "pretraining_tp": (1,),
    "attention_bias": (True, False),
    "topk_method": ("noaux_tc",),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What this architecture reads of config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: Rope
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
        heads, rope = config["num_attention_heads"], config["qk_rope_head_dim"]
        derived = {
            "num_key_value_heads": (heads, None),
            "head_dim": (rope, None),
            "qk_head_dim": (config["qk_nope_head_dim"] + rope, None),
            "scoring_func": ("sigmoid", "softmax"),
        }
        understood = {key: value for key, value in config.items() if key not in _HARMLESS}
        check_config(understood, reads=_READS, fixed=_FIXED | derived)
        cfg = cls(
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            vocab_size=config["vocab_size"],
            rms_norm_eps=config["rms_norm_eps"],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            rope=read_rope(config, rope),
            rope_interleave=config.get("rope_interleave", True),
            q_lora_rank=config.get("q_lora_rank"),
            kv_lora_rank=config["kv_lora_rank"],
            qk_nope_head_dim=config["qk_nope_head_dim"],
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
