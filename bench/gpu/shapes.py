"""Checkpoints of published shapes with random weights: what an engine's speed is measured with, where no network is."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from triune_builder.graph.promises import promised_weights

_QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 131072, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "initializer_range": 0.02, "tie_word_embeddings": False, "use_cache": True,
    "use_sliding_window": False, "torch_dtype": "bfloat16",
}  # fmt: skip
_LONGER = _QWEN2 | {
    "hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
}  # fmt: skip
_BLOCK = 128  # rows and columns that share a scale
_DEEPSEEK: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 163840, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.02,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False, "attention_dropout": 0.0,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_shared_experts": 1, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "norm_topk_prob": True, "moe_layer_freq": 1, "num_nextn_predict_layers": 0, "ep_size": 1,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {  # those with a size alone are DeepSeek-R1-Distill-Qwen's
    "1.5b": _QWEN2 | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "7b": _QWEN2 | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    },
    "14b": _LONGER | {"intermediate_size": 13824, "num_hidden_layers": 48},
    "32b": _LONGER | {"intermediate_size": 27648, "num_hidden_layers": 64},
    "70b": {  # of DeepSeek-R1-Distill-Llama
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "max_position_embeddings": 8192, "bos_token_id": 128000, "eos_token_id": 128001,
        "initializer_range": 0.02, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False,
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "r1-8-layers": _DEEPSEEK | {  # of DeepSeek-R1, as wide as it is
        "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 8,
        "num_attention_heads": 128, "num_key_value_heads": 128, "n_routed_experts": 256, "num_experts_per_tok": 8,
        "n_group": 8, "topk_group": 4, "first_k_dense_replace": 3, "vocab_size": 129280,
        "quantization_config": {
            "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [_BLOCK, _BLOCK],
        },
    },
    "tiny-r1": _DEEPSEEK | {
        "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 16, "num_experts_per_tok": 4,
        "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 1,
        "max_position_embeddings": 4096, "initializer_range": 0.08,
    },
    "tiny": _QWEN2 | {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "head_dim": 128, "bos_token_id": 1, "eos_token_id": 1,
        "max_position_embeddings": 4096, "initializer_range": 0.08,
    },
}  # fmt: skip
_OF_TINY = {"tiny-llama": ("llama", "LlamaForCausalLM"), "tiny-qwen3": ("qwen3", "Qwen3ForCausalLM")}
SHAPES |= {
    name: SHAPES["tiny"] | {"model_type": kind, "architectures": [architecture], "attention_bias": False}
    for name, (kind, architecture) in _OF_TINY.items()
}


class _Drawn(NamedTuple):
    """A tensor of random numbers."""

    sizes: tuple[int, ...]
    mean: float
    spread: float
    kind: str = "BF16"  # as safetensors name the type


_TYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F8_E4M3": torch.float8_e4m3fn}


def write_checkpoint(name: str, folder: Path, seed: int = 1) -> Path:
    """Write config.json, a tokenizer and random weights of the shape `name` into `folder`; what is there stays.

    Returns the folder.
    """
    config = SHAPES[name]
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    _write_tokenizer(config["vocab_size"], folder)
    weights = {name: _drawn(name, shape, config) for name, shape in promised_weights(config).required.items()}
    if "quantization_config" in config:
        weights = {part: drawn for name, one in weights.items() for part, drawn in _in_blocks(name, one).items()}
    _save(weights, folder / "model.safetensors", seed)
    return folder


def _drawn(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> _Drawn:
    """Numbers about one for a norm's weight, else about zero."""
    return _Drawn(shape, 1.0 if name.endswith("norm.weight") else 0.0, config["initializer_range"])


def _in_blocks(name: str, one: _Drawn) -> dict[str, _Drawn]:
    """A product's weight as eight-bit floats with a scale for each block, as R1's files have them; all else as it is."""
    if not name.endswith("_proj.weight") and not name.endswith("_proj_with_mqa.weight"):
        return {name: one}
    blocks = tuple(-(-size // _BLOCK) for size in one.sizes)
    return {name: one._replace(spread=1.0, kind="F8_E4M3"), f"{name}_scale_inv": _Drawn(blocks, one.spread, 0.0, "F32")}


def _save(weights: Mapping[str, _Drawn], path: Path, seed: int) -> None:
    """As safetensors, which a machine for measuring need not have; one tensor at a time, drawn where that is fast."""
    header, end = dict[str, Any](), 0
    for name, tensor in weights.items():
        size = _TYPES[tensor.kind].itemsize * math.prod(tensor.sizes)
        header[name] = {"dtype": tensor.kind, "shape": list(tensor.sizes), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chance = torch.Generator(device=device).manual_seed(seed)
    with path.with_suffix(".part").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in weights.values():
            numbers = torch.empty(*tensor.sizes, device=device, dtype=torch.float32 if tensor.kind == "F32" else torch.bfloat16)
            numbers.normal_(tensor.mean, tensor.spread, generator=chance)
            numbers.to(_TYPES[tensor.kind]).cpu().view(torch.uint8).numpy().tofile(file)
    path.with_suffix(".part").rename(path)


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    """Bytes, and as many tokens more as the shape has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"<extra_{n}>" for n in range(vocab_size - len(alphabet))]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate([*alphabet, *words])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), "utf-8")
