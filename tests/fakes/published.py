"""Published checkpoints as folders without numbers: right names, shapes and types from tables of their own, no disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .safetensors_writer import Shape, write_hollow
from .tiny_llama import byte_tokenizer

CONFIGS = Path(__file__).parents[1] / "builder" / "published"

# Sizes are names of config.json, products of them, and these few.
_GROUPED = {
    "self_attn.q_proj.weight": "queries hidden",
    "self_attn.k_proj.weight": "keys hidden",
    "self_attn.v_proj.weight": "keys hidden",
    "self_attn.o_proj.weight": "hidden queries",
}
_QWEN2_BIASES = {"self_attn.q_proj.bias": "queries", "self_attn.k_proj.bias": "keys", "self_attn.v_proj.bias": "keys"}
_QWEN3_NORMS = {"self_attn.q_norm.weight": "dim", "self_attn.k_norm.weight": "dim"}
_LATENT = {
    "self_attn.q_a_proj.weight": "q_lora_rank hidden",
    "self_attn.q_a_layernorm.weight": "q_lora_rank",
    "self_attn.q_b_proj.weight": "queries q_lora_rank",
    "self_attn.kv_a_proj_with_mqa.weight": "latent hidden",
    "self_attn.kv_a_layernorm.weight": "kv_lora_rank",
    "self_attn.kv_b_proj.weight": "expanded kv_lora_rank",
    "self_attn.o_proj.weight": "hidden values",
}
_NORMS = {"input_layernorm.weight": "hidden", "post_attention_layernorm.weight": "hidden"}
_PREDICTOR = {
    "embed_tokens.weight": "vocab_size hidden",
    "enorm.weight": "hidden",
    "hnorm.weight": "hidden",
    "eh_proj.weight": "hidden doubled",
    "shared_head.norm.weight": "hidden",
    "shared_head.head.weight": "vocab_size hidden",
}
_PLAIN = ("embed_tokens", "head", "eh_proj", "norm", "mlp.gate.")  # what R1 does not quantize


@dataclass(frozen=True)
class Published:
    """One published model: what its files hold, by type, and how many there are."""

    model: str
    source: str  # how the counts are known
    parameters: dict[str, int]
    shards: int
    config: dict[str, Any]

    @classmethod
    def read(cls, name: str) -> Published:
        return cls(**json.loads((CONFIGS / f"{name}.json").read_text("utf-8")))

    def write(self, folder: Path, **changes: Shape | None) -> Path:
        """The folder without numbers; `changes` replace or (None) leave out tensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2))
        (folder / "tokenizer.json").write_text(byte_tokenizer())
        shapes = tensors(self.config) | changes
        write_hollow(folder, {name: shape for name, shape in shapes.items() if shape is not None}, self.shards)
        return folder


def tensors(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> type and shape, in the order of the layers."""
    sizes, fp8 = _sizes(config), "quantization_config" in config
    found: dict[str, Shape] = {}
    table = {"model.embed_tokens.weight": "vocab_size hidden"}
    layers = config["num_hidden_layers"]
    for layer in range(layers + config.get("num_nextn_predict_layers", 0)):
        inside = _layer(config, layer) | (_PREDICTOR if layer >= layers else {})
        table |= {f"model.layers.{layer}.{name}": shape for name, shape in inside.items()}
    table |= {"model.norm.weight": "hidden"}
    if not config.get("tie_word_embeddings"):
        table["lm_head.weight"] = "vocab_size hidden"
    for name, axes in table.items():
        shape = tuple(sizes[axis] for axis in axes.split())
        if name.endswith("e_score_correction_bias"):
            found[name] = "F32", shape
        elif fp8 and not any(part in name for part in _PLAIN):
            found[name] = "F8_E4M3", shape
            found[f"{name}_scale_inv"] = "F32", tuple(math.ceil(size / 128) for size in shape)
        else:
            found[name] = "BF16", shape
    return found


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    sizes = {key: value for key, value in config.items() if isinstance(value, int)} | {"hidden": hidden, "doubled": 2 * hidden}
    if config["model_type"] == "deepseek_v3":
        nope, rope, value, lora = (config[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        return sizes | {
            "queries": heads * (nope + rope),
            "latent": lora + rope,
            "expanded": heads * (nope + value),
            "values": heads * value,
            "shared": config["moe_intermediate_size"] * config["n_shared_experts"],
        }
    dim = config.get("head_dim") or hidden // heads
    return sizes | {"dim": dim, "queries": heads * dim, "keys": config["num_key_value_heads"] * dim}


def _layer(config: Mapping[str, Any], layer: int) -> dict[str, str]:
    kind = config["model_type"]
    if kind != "deepseek_v3":
        more = {"llama": {}, "qwen2": _QWEN2_BIASES, "qwen3": _QWEN3_NORMS}[kind]
        return _NORMS | _GROUPED | more | _mlp("mlp", "intermediate_size")
    if layer < config["first_k_dense_replace"]:
        return _NORMS | _LATENT | _mlp("mlp", "intermediate_size")
    inside = _NORMS | _LATENT | _mlp("mlp.shared_experts", "shared")
    inside |= {"mlp.gate.weight": "n_routed_experts hidden", "mlp.gate.e_score_correction_bias": "n_routed_experts"}
    for expert in range(config["n_routed_experts"]):
        inside |= _mlp(f"mlp.experts.{expert}", "moe_intermediate_size")
    return inside


def _mlp(name: str, inner: str) -> dict[str, str]:
    return {
        f"{name}.gate_proj.weight": f"{inner} hidden",
        f"{name}.up_proj.weight": f"{inner} hidden",
        f"{name}.down_proj.weight": f"hidden {inner}",
    }
