"""Which of an engine's weights are the parts of a dense decoder: for kernels that compute a whole step themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from ...graph.arch import decoder
from ...graph.export import GraphBundle
from ...graph.rewrite import constant_shape
from ...quantize.schemes.blocks import BLOCK
from .precisions import CudaPrecision

_HEAD = "lm_head.weight"
_MATRICES = ("query", "key", "value", "out", "gate", "up", "down")


def dense_decoder(cfg: Any, bundle: GraphBundle, precision: CudaPrecision, block_tokens: int) -> dict[str, Any]:
    """Sizes and names, as JSON for the plan; empty for a model, or a precision, that has other parts than these.

    A weight is the name of an initializer and the row from which on it is that weight. Quantized ones are known where all of
    the layers' have four bits and the head eight, around their middle codes: what a checkpoint's own blocks have of other
    offsets is a further product, which the graph alone computes.

    Args:
        cfg: what the architecture read of config.json.
        bundle: lowered.
    """
    if not isinstance(cfg, decoder.Config):
        return {}
    there = bundle.model.graph.initializers
    layers = [_layer(cfg, f"model.layers.{number}") for number in range(cfg.num_hidden_layers)]
    head = _HEAD if _HEAD in there else "model.embed_tokens.weight"
    whole = {
        "embedding": ("model.embed_tokens.weight", 0),
        "norm": ("model.norm.weight", 0),
        "head": (head, 0),
        "cosines": ("rope.cos", 0),
        "sines": ("rope.sin", 0),
    }
    is_quantized = f"{_HEAD}.packed" in there
    if is_quantized:
        layers = [_quantized(layer, cfg.intermediate_size) for layer in layers]
        whole |= {"head": (f"{_HEAD}.packed", 0), "head_scale": (f"{_HEAD}.scale", 0)}
    biases = cfg.biases & set(decoder.ATTENTION)
    is_plain = cfg.biases == biases and biases in (set(), {"q_proj", "k_proj", "v_proj"}) and len(set(cfg.windows)) == 1
    if not is_plain or any(name not in there for part in (*layers, whole) for name, _ in part.values()):
        return {}
    if is_quantized and not _is_plain(there, whole["head"][0]):
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
    if is_quantized:
        shape |= {"weight_bits": 4, "head_bits": 8}
    if precision.cache != precision.dtype:
        shape["fp8_cache"] = True
    if window := cfg.windows[0]:
        shape["window"] = window
    caches = [(f"{number}.key", f"{number}.value") for number in range(cfg.num_hidden_layers)]
    return {"shape": shape, "layers": layers, "whole": whole, "caches": caches}


def _quantized(layer: dict[str, tuple[str, int]], intermediate: int) -> dict[str, tuple[str, int]]:
    """The same with packed matrices and their scales; gate and up are one matrix."""
    layer = dict(layer)
    for part in _MATRICES:
        name, first = layer[part]
        if part in ("gate", "up"):
            name, first = name.replace(f"{part}_proj", "gate_up_proj"), intermediate if part == "up" else 0
        layer |= {part: (f"{name}.packed", first), f"{part}_scale": (f"{name}.scale", first)}
    return layer


def _is_plain(there: Mapping[str, ir.Value], head: str) -> bool:
    """Whether all packed weights have the bits that the kernel takes, and no offsets but those of their middle codes."""
    packed = {name: constant_shape(value)[-1] for name, value in there.items() if name.endswith(".packed")}
    bits = {name: 8 if name == head else 4 for name in packed}
    is_known = all(size * 8 == BLOCK * bits[name] for name, size in packed.items())
    return is_known and not any(name.endswith(".rest") for name in there)


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
