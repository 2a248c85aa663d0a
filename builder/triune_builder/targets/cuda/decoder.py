"""Which of an engine's weights are the parts of a dense decoder: for kernels that compute a whole step themselves."""

from __future__ import annotations

from typing import Any

from ...graph.arch import decoder
from ...graph.export import GraphBundle
from .precisions import CudaPrecision


def dense_decoder(cfg: Any, bundle: GraphBundle, precision: CudaPrecision, block_tokens: int) -> dict[str, Any]:
    """Sizes and names, as JSON for the plan; empty for a model, or a precision, that has other parts than these.

    A weight is the name of an initializer and the row from which on it is that weight.

    Args:
        cfg: what the architecture read of config.json.
        bundle: lowered.
    """
    if not isinstance(cfg, decoder.Config) or precision.cache != precision.dtype:
        return {}
    there = bundle.model.graph.initializers.keys()
    layers = [_layer(cfg, f"model.layers.{number}") for number in range(cfg.num_hidden_layers)]
    head = "lm_head.weight" if "lm_head.weight" in there else "model.embed_tokens.weight"
    whole = {
        "embedding": ("model.embed_tokens.weight", 0),
        "norm": ("model.norm.weight", 0),
        "head": (head, 0),
        "cosines": ("rope.cos", 0),
        "sines": ("rope.sin", 0),
    }
    biases = cfg.biases & set(decoder.ATTENTION)
    is_plain = cfg.biases == biases and biases in (set(), {"q_proj", "k_proj", "v_proj"}) and not any(cfg.windows)
    if not is_plain or any(name not in there for part in (*layers, whole) for name, _ in part.values()):
        return {}
    shape = {
        "layers": cfg.num_hidden_layers,
        "hidden": cfg.hidden_size,
        "heads": cfg.num_attention_heads,
        "kv_heads": cfg.num_key_value_heads,
        "head_dim": cfg.head_dim,
        "intermediate": cfg.intermediate_size,
        "vocabulary": cfg.vocab_size,
        "epsilon": cfg.rms_norm_eps,
        "dtype": precision.dtype,
        "block_tokens": block_tokens,
        "qkv_bias": bool(biases),
        "qk_norm": cfg.head_norms,
    }
    caches = [(f"{number}.key", f"{number}.value") for number in range(cfg.num_hidden_layers)]
    return {"shape": shape, "layers": layers, "whole": whole, "caches": caches}


def _layer(cfg: decoder.Config, path: str) -> dict[str, tuple[str, int]]:
    queries = cfg.num_attention_heads * cfg.head_dim
    firsts = {"query": 0, "key": queries, "value": queries + cfg.num_key_value_heads * cfg.head_dim}
    product = f"{path}.self_attn.qkv_proj"
    parts = {name: (f"{product}.weight", first) for name, first in firsts.items()}
    if "q_proj" in cfg.biases:
        parts |= {f"{name}_bias": (f"{product}.bias", first) for name, first in firsts.items()}
    if cfg.head_norms:
        parts |= {f"{name}_norm": (f"{path}.self_attn.{name[0]}_norm.weight", 0) for name in ("query", "key")}
    return parts | {
        "attention_norm": (f"{path}.input_layernorm.weight", 0),
        "out": (f"{path}.self_attn.o_proj.weight", 0),
        "mlp_norm": (f"{path}.post_attention_layernorm.weight", 0),
        "gate": (f"{path}.mlp.gate_proj.weight", 0),
        "up": (f"{path}.mlp.up_proj.weight", 0),
        "down": (f"{path}.mlp.down_proj.weight", 0),
    }
