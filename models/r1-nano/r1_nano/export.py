"""A trained model as a published checkpoint folder: DeepSeek-V3's names, config.json, tokenizer, bf16 safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from .model import Nano
from .recipe import ModelRecipe, Recipe
from .tokenizer import save_tokenizer
from .verification import verification


def config(recipe: ModelRecipe) -> dict[str, Any]:
    """config.json with the keys that DeepSeek-V3's has."""
    sizes = (
        "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers",
        "num_nextn_predict_layers",
        "first_k_dense_replace", "num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
        "v_head_dim", "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group",
        "routed_scaling_factor", "rms_norm_eps", "rope_theta", "max_position_embeddings", "initializer_range",
        "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **{name: getattr(recipe, name) for name in sizes},
        "num_key_value_heads": recipe.num_attention_heads,
        "moe_layer_freq": 1,
        "ep_size": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "rope_interleave": True,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def published_weights(model: Nano) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint by its published name; the MTP layer's embeddings and head are copies."""
    mtp = f"model.layers.{model.recipe.num_hidden_layers}"
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.gate_proj", "experts.up_proj", "experts.down_proj")):
            base, _, projection = name.rpartition(".")
            for index, expert in enumerate(tensor):
                yield f"model.{base}.{index}.{projection}.weight", expert
        elif name.endswith("e_score_correction_bias"):
            yield f"model.{name}", tensor - tensor.min()  # only differences count; none negative
        else:
            yield (name if name.startswith("lm_head") else f"model.{name}"), tensor
    yield f"{mtp}.embed_tokens.weight", model.embed_tokens.weight.detach()
    yield f"{mtp}.shared_head.head.weight", model.lm_head.weight.detach()


def export(model: Nano, tokenizer: Tokenizer, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes the whole folder; the correction biases stay fp32, as published."""
    save_tokenizer(tokenizer, folder, max_length=model.recipe.max_position_embeddings)
    weights = {
        name: tensor.detach().to("cpu", torch.float32 if name.endswith("correction_bias") else dtype).contiguous().clone()
        for name, tensor in published_weights(model)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", config(model.recipe))
    recipe = model.recipe
    _write(folder / "verification.json", verification(Recipe()), ascii=False)
    _write(
        folder / "generation_config.json",
        {"bos_token_id": recipe.bos_token_id, "eos_token_id": recipe.eos_token_id, "pad_token_id": recipe.pad_token_id,
         "do_sample": True, "temperature": 0.6, "top_p": 0.95},
    )  # fmt: skip


def _write(path: Path, values: Mapping[str, Any], *, ascii: bool = True) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=ascii) + "\n", "utf-8")
