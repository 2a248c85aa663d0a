"""A folder of the size of Qwen2-1.5B (R1-Distill-Qwen-1.5B has its layers), with random weights: for builds at full size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .safetensors_writer import bf16
from .tiny_llama import byte_tokenizer

CONFIG: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "max_position_embeddings": 32768,
}  # fmt: skip


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight by its published name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        found |= {layer + f"{n}.weight": (hidden,) for n in ("input_layernorm", "post_attention_layernorm")}
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            found |= {layer + f"self_attn.{name}_proj.weight": (rows, hidden), layer + f"self_attn.{name}_proj.bias": (rows,)}
        found[layer + "self_attn.o_proj.weight"] = (hidden, hidden)
        found |= {layer + f"mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
        found[layer + "mlp.down_proj.weight"] = (hidden, inner)
    return found


def write(folder: Path, **changes: Any) -> Path:
    """The checkpoint in BF16, written piece by piece. No two weights are equal: TensorRT would keep one."""
    config = CONFIG | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(byte_tokenizer())
    header, end = {}, 0
    for name, shape in shapes(config).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = np.random.default_rng(0).normal(size=1 << 22).astype(np.float32)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (name, shape) in enumerate(shapes(config).items()):
            scale = 1.0 if len(shape) == 1 else shape[-1] ** -0.5
            for piece in _pieces(np.roll(block, 7919 * number), int(np.prod(shape)), scale):
                file.write(bf16(piece + (1 if name.endswith("norm.weight") else 0)).tobytes())
    return folder


def _pieces(block: NDArray[np.float32], size: int, scale: float) -> Iterator[NDArray[np.float32]]:
    for start in range(0, size, len(block)):
        yield block[: min(len(block), size - start)] * np.float32(scale)
