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

_QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 131072, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "initializer_range": 0.02, "tie_word_embeddings": False, "use_cache": True,
    "use_sliding_window": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {  # of DeepSeek-R1-Distill-Qwen
    "1.5b": _QWEN2 | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "7b": _QWEN2 | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
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


def write_checkpoint(name: str, folder: Path, seed: int = 1) -> Path:
    """Write config.json, a tokenizer and random bfloat16 weights of the shape `name` into `folder`; what is there stays.

    Returns the folder.
    """
    config = SHAPES[name]
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    _write_tokenizer(config["vocab_size"], folder)
    spread = config["initializer_range"]

    def normal(*sizes: int, mean: float = 0.0) -> _Drawn:
        return _Drawn(sizes, mean, spread)

    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    weights = {"model.embed_tokens.weight": normal(vocab, hidden), "lm_head.weight": normal(vocab, hidden)}
    weights["model.norm.weight"] = normal(hidden, mean=1.0)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            weights[f"{prefix}.self_attn.{part}_proj.weight"] = normal(rows, hidden)
            if config["model_type"] == "qwen2":
                weights[f"{prefix}.self_attn.{part}_proj.bias"] = normal(rows)
        if config["model_type"] == "qwen3":
            weights |= {f"{prefix}.self_attn.{part}_norm.weight": normal(head, mean=1.0) for part in "qk"}
        weights[f"{prefix}.self_attn.o_proj.weight"] = normal(hidden, queries)
        weights[f"{prefix}.mlp.gate_proj.weight"] = normal(inner, hidden)
        weights[f"{prefix}.mlp.up_proj.weight"] = normal(inner, hidden)
        weights[f"{prefix}.mlp.down_proj.weight"] = normal(hidden, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{norm}.weight"] = normal(hidden, mean=1.0)
    _save(weights, folder / "model.safetensors", seed)
    return folder


def _save(weights: Mapping[str, _Drawn], path: Path, seed: int) -> None:
    """As safetensors, which a machine for measuring need not have; one tensor at a time, drawn where that is fast."""
    header, end = dict[str, Any](), 0
    for name, tensor in weights.items():
        size = 2 * math.prod(tensor.sizes)
        header[name] = {"dtype": "BF16", "shape": list(tensor.sizes), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chance = torch.Generator(device=device).manual_seed(seed)
    with path.with_suffix(".part").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in weights.values():
            numbers = torch.empty(*tensor.sizes, device=device, dtype=torch.bfloat16)
            numbers.normal_(tensor.mean, tensor.spread, generator=chance)
            numbers.cpu().view(torch.uint8).numpy().tofile(file)
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
