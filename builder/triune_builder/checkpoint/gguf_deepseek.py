"""DeepSeek-V3 and R1 as GGUF spells them: `deepseek2` files, with stacked experts and split up-projections. A table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .tensor import Tensor

KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
}
OPTIONAL = {"attention.q_lora_rank": "q_lora_rank", "rope.freq_base": "rope_theta"}
FIXED: dict[str, tuple[Any, ...]] = {"expert_gating_func": (2,)}  # a sigmoid
IGNORED = frozenset(
    """
    vocab_size attention.head_count_kv attention.key_length attention.value_length attention.key_length_mla
    attention.value_length_mla rope.scaling.yarn_log_multiplier
    """.split()
)  # head sizes are read by `complete`, the multiplier with the scaling
CONSTANTS = {"hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
}
_STACKS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
LOG_MULTIPLIER = (
    "rope.scaling.yarn_log_multiplier"  # of the logarithm of YaRN's factor; mscale and mscale_all_dim are one in these models
)


def complete(config: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Add to `config` what the file says in other terms.

    Raises:
        BuildError: a key that is needed is missing.
    """
    heads = {}
    for part in ("key", "value"):
        length = own.get(f"attention.{part}_length_mla", own.get(f"attention.{part}_length"))
        if length is None:
            raise _lacks(f"attention.{part}_length")
        heads[part] = length
    config["qk_nope_head_dim"] = heads["key"] - config["qk_rope_head_dim"]
    config["v_head_dim"] = heads["value"]
    config["num_key_value_heads"] = config["num_attention_heads"]
    config.setdefault("rope_theta", 10_000.0)
    if own.get("rope.scaling.type") == "yarn" and LOG_MULTIPLIER not in own:
        raise _lacks(LOG_MULTIPLIER)


def unpack(stored: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that are not one of the checkpoint's, under Hugging Face's names and as they are there; and the others.

    Raises:
        BuildError: the halves of an up-projection do not fit together.
    """
    found: dict[str, Tensor] = {}
    rest = dict(stored)
    for name in stored:
        parts = name.split(".")
        if len(parts) != 4 or parts[0] != "blk":
            continue
        layer, kind = f"model.layers.{parts[1]}", parts[2]
        if kind in _STACKS:
            found |= _experts(f"{layer}.mlp.experts", _STACKS[kind], rest.pop(name), config["n_routed_experts"])
        elif name.endswith("exp_probs_b.bias"):
            own_name = f"{layer}.mlp.gate.e_score_correction_bias"
            found[own_name] = dataclasses.replace(rest.pop(name), name=own_name)
        elif kind == "attn_k_b" and (values := rest.get(f"blk.{parts[1]}.attn_v_b.weight")) is not None:
            own_name = f"{layer}.self_attn.kv_b_proj.weight"
            found[own_name] = _joined(own_name, rest.pop(name), rest.pop(values.name), config)
    return found, rest


@dataclass(frozen=True, kw_only=True)
class UpProjection(Tensor):
    """kv_b_proj [heads (nope + v), lora] from its two halves; its own place in the file is that of the keys."""

    keys: Tensor  # [heads, lora, nope]
    values: Tensor  # [heads, v, lora]

    def float32(self) -> NDArray[np.float32]:
        keys = self.keys.float32().swapaxes(1, 2)
        both: NDArray[np.float32] = np.concatenate([keys, self.values.float32()], axis=1)
        return both.reshape(self.shape)

    @property
    def has_blocks(self) -> bool:
        return False

    def blocks(self) -> None:
        return None

    def location(self) -> None:
        return None


def _experts(layer: str, projection: str, stack: Tensor, count: int) -> dict[str, Tensor]:
    if len(stack.shape) != 3 or stack.shape[0] != count:
        raise BuildError(f"{stack.name} is {list(stack.shape)}; {count} experts were expected", "the file is inconsistent")
    nbytes, found = stack.nbytes // count, {}
    for i in range(count):
        name = f"{layer}.{i}.{projection}.weight"
        found[name] = dataclasses.replace(
            stack, name=name, shape=stack.shape[1:], offset=stack.offset + i * nbytes, nbytes=nbytes
        )
    return found


def _joined(name: str, keys: Tensor, values: Tensor, config: Mapping[str, Any]) -> UpProjection:
    heads, lora = config["num_attention_heads"], config["kv_lora_rank"]
    nope, v = config["qk_nope_head_dim"], config["v_head_dim"]
    if (keys.shape, values.shape) != ((heads, lora, nope), (heads, v, lora)):
        raise BuildError(
            f"{keys.name} and {values.name} are {list(keys.shape)} and {list(values.shape)}; {[heads, lora, nope]} and "
            f"{[heads, v, lora]} were expected",
            "the file is inconsistent",
        )
    return UpProjection(
        name=name, shape=(heads * (nope + v), lora), dtype="F32", path=keys.path, offset=keys.offset,
        nbytes=keys.nbytes + values.nbytes, keys=keys, values=values,
    )  # fmt: skip


def _lacks(key: str) -> BuildError:
    return BuildError(
        f"the GGUF metadata lacks deepseek2.{key}", "build from the model's Hugging Face folder or hub id instead"
    )
