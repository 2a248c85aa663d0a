"""Configs of tiny checkpoints with the odd keys that published ones have; a fixture has what transformers computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MISSING = object()  # in changes: the key is not there

_COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 512,
    "tie_word_embeddings": False, "rope_theta": 10000.0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "llama": _COMMON | {"attention_bias": False, "mlp_bias": False},
    "mistral": _COMMON | {"sliding_window": None},
    "qwen2": {k: v for k, v in _COMMON.items() if k != "head_dim"}
    | {"hidden_size": 64, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2},
    "qwen3": _COMMON | {"attention_bias": False, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2},
    "deepseek_v3": {k: v for k, v in _COMMON.items() if k != "head_dim"} | {
        "num_hidden_layers": 3, "num_key_value_heads": 4, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
        "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
        "n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 2, "topk_group": 1, "n_shared_experts": 1,
        "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_interleave": True, "attention_bias": False,
        "num_nextn_predict_layers": 0,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One checkpoint: its config.json, and what is stored beside the weights that transformers saves of it."""

    name: str
    config: dict[str, Any]
    length: int = 48  # tokens of the text
    head: str = ""  # "own": lm_head.weight is stored beside a tie; "copy": with the table's numbers


def _case(kind: str, name: str, changes: dict[str, Any], **fields: Any) -> Case:
    config = {"model_type": kind, **BASES[kind], **changes}
    return Case(name=f"{kind} {name}", config={k: v for k, v in config.items() if v is not MISSING}, **fields)


def _yarn(**more: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32} | more}


_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 2.5, 3.0], "long_factor": [9.0] * 8}
_IGNORED: dict[str, Any] = {  # what transformers stores and what others leave
    "_attn_implementation_autoset": True, "temperature": 0.6, "top_p": 0.95, "do_sample": True, "torchscript": False,
    "pruned_heads": {}, "is_decoder": True, "pretraining_tp": None, "use_sliding_window": False, "torch_dtype": "float32",
    "attention_dropout": 0.1, "use_cache": False, "tie_encoder_decoder": False, "finetuning_task": None, "top_k": 20,
    "max_length": 30, "repetition_penalty": 1.1, "transformers_version": "4.44.0", "_name_or_path": "x", "prefix": None,
    "output_scores": False, "add_cross_attention": False, "tf_legacy_loss": False, "use_bfloat16": False,
    "initializer_range": 0.05, "some_later_key": None, "partial_rotary_factor": None, "return_dict_in_generate": False,
}  # fmt: skip

_LLAMA = [
    _case("llama", "plain", {}),
    _case("llama", "keys that change nothing", _IGNORED),
    _case("llama", "eps missing", {"rms_norm_eps": MISSING}),
    _case("llama", "eps 1e-2", {"rms_norm_eps": 1e-2}),
    _case("llama", "head_dim null", {"head_dim": None, "hidden_size": 64}),
    _case("llama", "head_dim missing", {"head_dim": MISSING, "hidden_size": 64}),
    _case("llama", "kv heads null", {"num_key_value_heads": None}),
    _case("llama", "kv heads missing", {"num_key_value_heads": MISSING}),
    _case("llama", "one kv head", {"num_key_value_heads": 1}),
    _case("llama", "one head", {"num_attention_heads": 1, "num_key_value_heads": 1}),
    _case("llama", "attention_bias", {"attention_bias": True}),
    _case("llama", "mlp_bias", {"mlp_bias": True}),
    _case("llama", "both biases, flags of others", {"attention_bias": True, "mlp_bias": True, "rope_interleaved": None}),
    _case("llama", "tied", {"tie_word_embeddings": True}),
    _case("llama", "tied, a copy stored", {"tie_word_embeddings": True}, head="copy"),
    _case("llama", "tied, another head stored", {"tie_word_embeddings": True}, head="own"),
    _case("llama", "tie missing", {"tie_word_embeddings": MISSING}),
    _case("llama", "swish", {"hidden_act": "swish"}),
    _case("llama", "act missing", {"hidden_act": MISSING}),
    _case("llama", "sliding_window", {"sliding_window": 8}),
    _case("llama", "sliding layer_types", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    _case("llama", "pretraining_tp 2", {"pretraining_tp": 2}),
    _case("llama", "theta missing", {"rope_theta": MISSING}),
    _case("llama", "theta an integer", {"rope_theta": 500000}),
    _case("llama", "theta in rope_parameters", {"rope_parameters": {"rope_theta": 500.0}}),
    _case("llama", "theta in rope_parameters alone", {"rope_theta": MISSING, "rope_parameters": {"rope_theta": 500.0}}),
    _case("llama", "theta in rope_scaling", _yarn(rope_theta=500.0)),
    _case("llama", "both ropes", _yarn() | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    _case("llama", "both ropes, of two kinds", {
        "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    _case("llama", "rope_scaling empty", {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    _case("llama", "rope_scaling null", {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    _case("llama", "linear by its old key", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    _case("llama", "two types", {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0,
                                                  "original_max_position_embeddings": 32}}),
    _case("llama", "no type", {"rope_scaling": {"factor": 2.0}}),
    _case("llama", "dynamic", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    _case("llama", "dynamic to its end", {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 48}),
    _case("llama", "llama3", {"rope_scaling": _LLAMA3 | {"original_max_position_embeddings": 16}}, length=120),
    _case("llama", "llama3, original missing", {"rope_scaling": _LLAMA3, "max_position_embeddings": 128}, length=120),
    _case("llama", "longrope", {"rope_scaling": _LONG | {"original_max_position_embeddings": 64}}),
    _case("llama", "longrope, factor", {"rope_scaling": _LONG | {"factor": 8.0, "original_max_position_embeddings": 64}}),
    _case("llama", "longrope, attention_factor", {"rope_scaling": _LONG | {"attention_factor": 1.3}}),
    _case("llama", "yarn, betas null", _yarn(beta_fast=None, beta_slow=None, attention_factor=None, mscale=None)),
    _case("llama", "yarn, betas 0", _yarn(beta_fast=0, beta_slow=0), length=120),
    _case("llama", "yarn, betas", _yarn(beta_fast=8.0, beta_slow=0.5), length=120),
    _case("llama", "yarn, truncate false", _yarn(truncate=False), length=120),
    _case("llama", "yarn, truncate null", _yarn(truncate=None), length=120),
    _case("llama", "yarn, attention_factor", _yarn(attention_factor=0.7)),
    _case("llama", "yarn, mscale and all_dim", _yarn(mscale=1.0, mscale_all_dim=0.5)),
    _case("llama", "yarn, mscale alone", _yarn(mscale=0.5)),
    _case("llama", "yarn, factor null", _yarn(factor=None), length=120),
    _case("llama", "yarn, factor 1", _yarn(factor=1.0), length=120),
    _case("llama", "yarn, finetuned", _yarn(finetuned=True)),
    _case("llama", "yarn, original missing", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, length=120),
    _case("llama", "yarn, original outside", {"rope_scaling": {"type": "yarn", "factor": 4.0},
                                              "original_max_position_embeddings": 16}, length=120),
    _case("llama", "yarn, original twice", _yarn() | {"original_max_position_embeddings": 128}, length=120),
    _case("llama", "yarn, original of 4", _yarn(original_max_position_embeddings=4)),
]  # fmt: skip

_MISTRAL = [
    _case("mistral", "plain", {}),
    _case("mistral", "window", {"sliding_window": 7}),
    _case("mistral", "window longer than the text", {"sliding_window": 100}),
    _case("mistral", "window missing", {"sliding_window": MISSING, "max_position_embeddings": 8192, "num_hidden_layers": 1,
                                        "num_attention_heads": 1, "num_key_value_heads": 1}, length=4200),
    _case("mistral", "kv heads missing", {"num_key_value_heads": MISSING, "num_attention_heads": 8, "head_dim": None,
                                          "hidden_size": 128}),
    _case("mistral", "attention_bias that it has not", {"attention_bias": True, "mlp_bias": True}),
    _case("mistral", "layer_types that agree", {"sliding_window": 7, "layer_types": ["sliding_attention"] * 2}),
    _case("mistral", "tied, another head stored", {"tie_word_embeddings": True}, head="own"),
]  # fmt: skip

_WINDOWED = {"use_sliding_window": True, "sliding_window": 9}
_QWEN = [
    _case("qwen2", "plain", {}),
    _case("qwen2", "attention_bias false", {"attention_bias": False, "use_mrope": False}),
    _case("qwen2", "kv heads null", {"num_key_value_heads": None}),
    _case("qwen2", "head_dim of its own", {"head_dim": 32}),
    _case("qwen2", "window that is off", {"sliding_window": 9, "max_window_layers": 0}),
    _case("qwen2", "windows from layer 1", _WINDOWED | {"max_window_layers": 1}),
    _case("qwen2", "max_window_layers missing", _WINDOWED | {"max_window_layers": MISSING}),
    _case("qwen2", "layer_types", _WINDOWED | {"layer_types": ["sliding_attention", "full_attention"]}),
    _case("qwen2", "window missing and on", {
        "use_sliding_window": True, "sliding_window": MISSING, "max_window_layers": 0, "max_position_embeddings": 8192,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 32}, length=4200),
    _case("qwen2", "kv heads missing", {"num_key_value_heads": MISSING, "num_attention_heads": 32, "head_dim": 16}),
    _case("qwen2", "yarn, tied", _yarn() | {"tie_word_embeddings": True}, length=120),
    _case("qwen3", "plain", {}),
    _case("qwen3", "head_dim missing", {"head_dim": MISSING, "num_attention_heads": 2}),
    _case("qwen3", "attention_bias", {"attention_bias": True}),
    _case("qwen3", "eps 1e-2", {"rms_norm_eps": 1e-2}),
    _case("qwen3", "both ropes", _yarn() | {"rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    _case("qwen3", "windows", _WINDOWED | {"max_window_layers": 0}),
    _case("qwen3", "windows in no layer", _WINDOWED | {"max_window_layers": 2, "layer_types": None}),
    _case("qwen3", "rope_parameters", {
        "rope_theta": MISSING, "rope_parameters": _yarn()["rope_scaling"] | {"rope_theta": 1e4}}),
    _case("qwen3", "one head, tied", {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": True}),
]  # fmt: skip

_SCALED = _yarn(mscale=1.0, mscale_all_dim=1.0)
_DEEPSEEK = [
    _case("deepseek_v3", name, changes, **fields)
    for name, changes, fields in [
        ("plain", {}, {}),
        ("scaling missing", {"routed_scaling_factor": MISSING}, {}),
        ("groups missing", {"n_group": MISSING, "topk_group": MISSING, "n_routed_experts": 32}, {}),
        ("topk_group missing", {"topk_group": MISSING, "n_group": 4}, {}),
        ("one group", {"n_group": 1, "topk_group": 1}, {}),
        ("two groups of four", {"n_group": 4, "topk_group": 2}, {}),
        ("norm_topk_prob false", {"norm_topk_prob": False}, {}),
        ("norm_topk_prob null", {"norm_topk_prob": None}, {}),
        ("experts a token missing", {"num_experts_per_tok": MISSING, "n_routed_experts": 16}, {}),
        ("one expert a token", {"num_experts_per_tok": 1}, {}),
        ("experts by another name", {"n_routed_experts": MISSING, "num_local_experts": 8}, {}),
        ("shared experts missing", {"n_shared_experts": MISSING}, {}),
        ("two shared experts", {"n_shared_experts": 2}, {}),
        ("no dense layer", {"first_k_dense_replace": 0}, {}),
        ("dense layers alone", {"first_k_dense_replace": 3}, {}),
        ("dense layers missing", {"first_k_dense_replace": MISSING, "num_hidden_layers": 4}, {}),
        ("every second layer, all stored", {"moe_layer_freq": 2}, {}),
        ("full rank", {"q_lora_rank": None}, {}),
        ("ranks missing", {"q_lora_rank": MISSING, "kv_lora_rank": MISSING, "num_hidden_layers": 2}, {}),
        ("head sizes missing", {"qk_nope_head_dim": MISSING, "qk_rope_head_dim": MISSING, "v_head_dim": MISSING}, {}),
        ("experts' size missing", {"moe_intermediate_size": MISSING, "num_hidden_layers": 2}, {}),
        ("eps 1e-2", {"rms_norm_eps": 1e-2}, {}),
        ("eps missing", {"rms_norm_eps": MISSING}, {}),
        ("halves rotate", {"rope_interleave": False}, {}),
        ("interleave null", {"rope_interleave": None}, {}),
        ("interleave missing", {"rope_interleave": MISSING}, {}),
        ("attention_bias", {"attention_bias": True}, {}),
        ("attention_bias at full rank", {"attention_bias": True, "q_lora_rank": None}, {}),
        ("one head", {"num_attention_heads": 1, "num_key_value_heads": 1}, {}),
        ("kv heads null", {"num_key_value_heads": None}, {}),
        ("yarn with mscale", _SCALED, {"length": 120}),
        ("yarn with two mscales", _yarn(mscale=0.7, mscale_all_dim=1.2), {"length": 120}),
        ("yarn without mscale", _yarn(), {"length": 120}),
        ("further tokens promised, not stored", {"num_nextn_predict_layers": 1}, {}),
        ("further tokens missing", {"num_nextn_predict_layers": MISSING}, {}),
        ("further tokens by another name", {"num_nextn_predict_layers": MISSING, "num_mtp_layers": 2}, {}),
        ("tied", {"tie_word_embeddings": True}, {}),
        ("keys of training", {"aux_loss_alpha": 0.1, "ep_size": 1, "seq_aux": True, "topk_method": "noaux_tc",
                              "scoring_func": "sigmoid", "moe_layer_freq": 1, "output_router_logits": False}, {}),
    ]
]  # fmt: skip

CASES: list[Case] = [*_LLAMA, *_MISTRAL, *_QWEN, *_DEEPSEEK]
