"""Random DeepSeek-V3 models of a few thousand weights: config.json as published, weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .tiny_llama import FakeCheckpoint, FakeTensor, byte_tokenizer

R1_CONFIG: dict[str, Any] = {  # of deepseek-ai/DeepSeek-R1
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "aux_loss_alpha": 0.001,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "pretraining_tp": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.3",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}  # fmt: skip

TINY: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "num_nextn_predict_layers": 0, "first_k_dense_replace": 1,
    "q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "rope_scaling": None,
    "max_position_embeddings": 4096, "rope_theta": 1000.0,
}  # fmt: skip


def tiny_config(**changes: Any) -> dict[str, Any]:
    config = {k: v for k, v in R1_CONFIG.items() if k != "quantization_config"} | TINY | changes
    return config | {"num_key_value_heads": config["num_attention_heads"]}


def tiny_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight of the checkpoint, by its published name; those of MTP layers included."""
    hidden, last = config["hidden_size"], config["num_hidden_layers"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(last + (config["num_nextn_predict_layers"] or 0)):
        layer = f"model.layers.{i}."
        shapes |= {layer + n: s for n, s in _layer_shapes(config, i).items()}
        if i >= last:
            shapes |= {layer + f"{n}.weight": (hidden,) for n in ("enorm", "hnorm", "shared_head.norm")}
            shapes[layer + "eh_proj.weight"] = (hidden, 2 * hidden)
            shapes |= {layer + f"{n}.weight": (config["vocab_size"], hidden) for n in ("embed_tokens", "shared_head.head")}
    return shapes


def _layer_shapes(config: Mapping[str, Any], i: int) -> dict[str, tuple[int, ...]]:
    hidden, heads, lora, rope = (config[n] for n in ("hidden_size", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim"))
    nope, v, q_lora = config["qk_nope_head_dim"], config["v_head_dim"], config["q_lora_rank"]
    shapes: dict[str, tuple[int, ...]] = {f"{n}.weight": (hidden,) for n in ("input_layernorm", "post_attention_layernorm")}
    if q_lora is None:
        shapes["self_attn.q_proj.weight"] = (heads * (nope + rope), hidden)
    else:
        shapes["self_attn.q_a_proj.weight"] = (q_lora, hidden)
        shapes["self_attn.q_a_layernorm.weight"] = (q_lora,)
        shapes["self_attn.q_b_proj.weight"] = (heads * (nope + rope), q_lora)
    shapes["self_attn.kv_a_proj_with_mqa.weight"] = (lora + rope, hidden)
    shapes["self_attn.kv_a_layernorm.weight"] = (lora,)
    shapes["self_attn.kv_b_proj.weight"] = (heads * (nope + v), lora)
    shapes["self_attn.o_proj.weight"] = (hidden, heads * v)
    if config["attention_bias"]:
        names = ("kv_a_proj_with_mqa", "o_proj", *(() if q_lora is None else ("q_a_proj",)))
        shapes |= {f"self_attn.{n}.bias": shapes[f"self_attn.{n}.weight"][:1] for n in names}
    if i < config["first_k_dense_replace"] or i % config["moe_layer_freq"]:
        return shapes | _mlp("mlp", hidden, config["intermediate_size"])
    experts, inner = config["n_routed_experts"], config["moe_intermediate_size"]
    shapes |= {"mlp.gate.weight": (experts, hidden), "mlp.gate.e_score_correction_bias": (experts,)}
    for e in range(experts):
        shapes |= _mlp(f"mlp.experts.{e}", hidden, inner)
    if config["n_shared_experts"]:
        shapes |= _mlp("mlp.shared_experts", hidden, inner * config["n_shared_experts"])
    return shapes


def _mlp(name: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    wide = {f"{name}.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
    return wide | {f"{name}.down_proj.weight": (hidden, inner)}


def tiny_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, FakeTensor]:
    """Random weights, large enough that attention, rotation and routing matter to every logit."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in tiny_shapes(config).items():
        if name.endswith("correction_bias"):
            values = random.normal(size=shape) * 0.2
        elif len(shape) == 1:
            values = random.normal(size=shape) * 0.2 + (0 if name.endswith("bias") else 1)
        else:
            values = random.normal(size=shape) * 2.0 / shape[-1] ** 0.5
        weights[name] = FakeTensor(values.astype(np.float32))
    return weights


def tiny_checkpoint(*, seed: int = 0, files: tuple[Path, ...] = (), **changes: Any) -> FakeCheckpoint:
    config = tiny_config(**changes)
    return FakeCheckpoint(config=config, weights=tiny_weights(config, seed), tokenizer_json=byte_tokenizer(), files=files)
