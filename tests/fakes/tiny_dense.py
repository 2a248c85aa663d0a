"""Random dense models of a few thousand weights: Llama, Mistral, Qwen2, Qwen3, with all that their configs vary. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tiny_llama import FakeCheckpoint, FakeTensor, byte_tokenizer, tiny_config, tiny_weights

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SCALINGS: tuple[dict[str, Any] | None, ...] = (
    None,
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "linear", "factor": 2.0},
    YARN,
    YARN | {"attention_factor": 0.8, "beta_fast": 16.0, "beta_slow": 2.0},
    YARN | {"truncate": False},
)  # fmt: skip


def dense_checkpoint(
    model_type: str, *, seed: int = 0, o_bias: bool = False, mlp_bias: bool = False, **changes: Any
) -> FakeCheckpoint:
    """A checkpoint of that architecture.

    Args:
        o_bias: attention_bias of Llama and Qwen3: all four projections of the attention have one.
    """
    config = tiny_config(model_type=model_type, **changes)
    if model_type == "llama":
        config |= {"attention_bias": o_bias, "mlp_bias": mlp_bias}
    if model_type == "qwen3":
        config = {"head_dim": 16} | config | {"attention_bias": o_bias}
    weights = tiny_weights(config, seed)
    random = np.random.default_rng(seed + 1000)

    def vector(size: int, middle: float) -> FakeTensor:
        values: NDArray[np.float32] = (middle + random.normal(size=size) * 0.5).astype(np.float32)
        return FakeTensor(values)

    biased = ("qkv" if model_type == "qwen2" else "") + ("qkvo" if o_bias else "")
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        names = [f"{layer}self_attn.{n}_proj" for n in dict.fromkeys(biased)]
        names += [f"{layer}mlp.{n}_proj" for n in ("gate", "up", "down") if mlp_bias]
        weights |= {f"{name}.bias": vector(weights[f"{name}.weight"].shape[0], 0.0) for name in names}
        if model_type == "qwen3":
            weights |= {f"{layer}self_attn.{n}_norm.weight": vector(config["head_dim"], 1.0) for n in "qk"}
    return FakeCheckpoint(config=config, weights=weights, tokenizer_json=byte_tokenizer())


def random_changes(model_type: str, seed: int) -> dict[str, Any]:
    """A config drawn from all that the architecture varies; six seeds in a row see every rope scaling and every choice."""
    random = np.random.default_rng(seed)
    kv_heads = int(random.choice([1, 2, 3]))
    heads = kv_heads * int(random.choice([1, 2, 3, 5]))
    dim = int(random.choice([16, 32, 48]))
    changes: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": dim,
        "hidden_size": heads * (dim if seed % 2 or model_type == "qwen2" else 12),
        "num_hidden_layers": 3,
        "tie_word_embeddings": bool(seed // 2 % 2),
        "rope_scaling": SCALINGS[seed % len(SCALINGS)],
        "rope_theta": float(random.choice([1000.0, 10_000.0, 1_000_000.0])),
        "rms_norm_eps": float(random.choice([1e-5, 1e-6])),
    }
    if model_type == "mistral":
        changes["sliding_window"] = int(random.choice([4, 7, 12])) if seed % 3 else None
    if model_type.startswith("qwen") and seed % 3 == 1:
        changes |= {"use_sliding_window": True, "sliding_window": int(random.choice([5, 9])), "max_window_layers": seed % 4}
    if model_type.startswith("qwen") and seed % 3 == 2:
        changes |= {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 0}
    if model_type in ("llama", "qwen3"):
        changes["o_bias"] = bool(seed // 3 % 2)
    if model_type == "llama":
        changes["mlp_bias"] = bool(seed % 2)
    return changes
