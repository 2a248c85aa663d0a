"""How GGUF spells each architecture: metadata keys, tensor names, row order. Turns them into Hugging Face's. A table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError, quoted
from . import gguf_deepseek as deepseek
from .gguf_values import check_values
from .tensor import Tensor

_HINT = "build from the model's Hugging Face folder or hub id instead, or teach checkpoint/gguf_architectures.py to read it"


def _complete(config: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Heads of one size for queries, keys and values, where the file does not say it."""
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    config.setdefault("rope_theta", 10_000.0)
    for key in ("rope.dimension_count", "attention.value_length"):
        if own.get(key, config["head_dim"]) != config["head_dim"]:
            raise BuildError(f"{key} is {own[key]}, but a head has {config['head_dim']} numbers", _HINT)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One `general.architecture`. Metadata keys are without the architecture's own prefix."""

    model_type: str
    keys: Mapping[str, str]  # metadata key -> config.json key, both required
    optional: Mapping[str, str] = field(default_factory=dict)  # the same, left out where the file says nothing
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # understood with these values only
    ignored: frozenset[str] = frozenset()  # said again elsewhere, or without influence on the numbers
    constants: Mapping[str, Any] = field(default_factory=dict)  # of config.json, true for every such file
    tensors: Mapping[str, str] = field(default_factory=dict)  # outside of layers, without .weight / .bias
    layer: Mapping[str, str] = field(default_factory=dict)  # inside blk.<i> -> inside model.layers.<i>
    interleaved: Mapping[str, str] = field(default_factory=dict)  # layer tensor -> config.json key of its head count
    complete: Callable[[dict[str, Any], Mapping[str, Any]], None] = _complete  # adds what the file says in other terms
    unpack: Callable[..., tuple[dict[str, Tensor], dict[str, Tensor]]] | None = None  # see gguf_deepseek


_LLAMA = Architecture(
    model_type="llama",
    keys={
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "context_length": "max_position_embeddings",
    },
    optional={
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "rope.freq_base": "rope_theta",
    },
    fixed={"expert_count": (0,), "expert_used_count": (0,), "attention.causal": (True,)},
    ignored=frozenset({"vocab_size", "attention.value_length", "rope.dimension_count", "rope.scaling.finetuned"}),
    constants={"hidden_act": "silu"},
    tensors={"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
    layer={
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
    interleaved={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"},
)

# Qwen's rows lie as in the checkpoint: only Llama's file format interleaves them.
_QWEN2 = dataclasses.replace(_LLAMA, model_type="qwen2", interleaved={})
_QWEN3 = dataclasses.replace(
    _QWEN2, model_type="qwen3", layer={**_LLAMA.layer, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
)

_DEEPSEEK = Architecture(
    model_type="deepseek_v3",
    keys=deepseek.KEYS,
    optional=deepseek.OPTIONAL,
    fixed=deepseek.FIXED,
    ignored=deepseek.IGNORED,
    constants=deepseek.CONSTANTS,
    tensors=_LLAMA.tensors,
    layer=deepseek.LAYER,
    complete=deepseek.complete,
    unpack=deepseek.unpack,
)

ARCHITECTURES: dict[str, Architecture] = {"llama": _LLAMA, "qwen2": _QWEN2, "qwen3": _QWEN3, "deepseek2": _DEEPSEEK}

_YARN = {  # metadata key -> rope_scaling key, where the file says it
    "rope.scaling.attn_factor": "attn_factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
_ROPE_KEYS = frozenset(
    {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scale_linear", *_YARN}
)
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # as published


def architecture_of(metadata: Mapping[str, Any]) -> Architecture:
    """The table's row for this file.

    Raises:
        BuildError: no such row.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise BuildError(f"GGUF architecture {quoted(name)} is not read; known: {', '.join(sorted(ARCHITECTURES))}", _HINT)
    return ARCHITECTURES[name]


def read_config(
    metadata: Mapping[str, Any], *, vocab_size: int, tied: bool, rope_factors: Callable[[], NDArray[np.float32]] | None
) -> dict[str, Any]:
    """What config.json would say.

    Args:
        vocab_size: rows of the embedding table.
        tied: the file has no output projection of its own.
        rope_factors: reads rope_freqs.weight, by which the rotary frequencies are divided; None if there is none.

    Raises:
        BuildError: a key is missing, or may change what the model computes and is not understood.
    """
    row = architecture_of(metadata)
    prefix = f"{metadata['general.architecture']}."
    own = {k.removeprefix(prefix): _plain(v) for k, v in metadata.items() if k.startswith(prefix)}
    missing = sorted(row.keys.keys() - own)
    if missing:
        raise BuildError(f"the GGUF metadata lacks {', '.join(prefix + k for k in missing)}", _HINT)
    known = {*row.keys, *row.optional, *row.ignored, *_ROPE_KEYS}
    strange = [
        f"{prefix}{k} = {quoted(v)}" for k, v in sorted(own.items()) if k not in known and v not in row.fixed.get(k, ())
    ]  # fmt: skip
    if strange:
        raise BuildError(f"GGUF metadata that may change the maths is not understood: {'; '.join(strange)}", _HINT)

    config = {"model_type": row.model_type, **row.constants}
    config |= {theirs: own[ours] for ours, theirs in {**row.keys, **row.optional}.items() if ours in own}
    for key, value in config.items():
        if isinstance(value, list):
            raise BuildError(f"{key} differs from layer to layer: {quoted(value)}", _HINT)
    check_values(prefix, own, row.keys.keys() | row.optional.keys() | row.ignored | _ROPE_KEYS)
    config |= {"vocab_size": vocab_size, "tie_word_embeddings": tied}
    row.complete(config, own)
    config["rope_scaling"] = _rope_scaling(own, config, rope_factors)
    return config


def hugging_face_name(row: Architecture, name: str, config: Mapping[str, Any]) -> tuple[str, int | None] | None:
    """Hugging Face's name for a tensor, and how many heads its rows interleave (None: none). None for an unknown tensor."""
    layer = re.fullmatch(r"blk\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer and layer[2] in row.layer and int(layer[1]) < config["num_hidden_layers"]:
        heads = row.interleaved.get(layer[2])
        return f"model.layers.{layer[1]}.{row.layer[layer[2]]}.{layer[3]}", config[heads] if heads else None
    stem, _, kind = name.rpartition(".")
    return (f"{row.tensors[stem]}.{kind}", None) if stem in row.tensors else None


def _plain(value: Any) -> Any:
    """GGUF keeps numbers like 1e-5 as float32; the shortest decimal that reads back as the same float32 is what was meant."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _rope_scaling(
    own: Mapping[str, Any], config: Mapping[str, Any], rope_factors: Callable[[], NDArray[np.float32]] | None
) -> dict[str, Any] | None:
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0))
    if kind not in ("none", "linear", "yarn"):
        raise BuildError(
            f"rope scaling of type {quoted(kind)} is not read from GGUF; known: none, linear, yarn and Llama 3's", _HINT
        )
    stray = sorted(_YARN.keys() & own.keys())
    if stray and kind != "yarn":
        raise BuildError(f"the file has {', '.join(stray)}, but its rope scaling is of type {kind!r}", _HINT)
    if kind == "yarn":
        needed = {"rope.scaling.factor", "rope.scaling.original_context_length"}
        if rope_factors is not None or not needed <= own.keys():
            raise BuildError(
                f"rope scaling of type 'yarn' is read with {' and '.join(sorted(needed))}, and no rope_freqs", _HINT
            )
        original = own["rope.scaling.original_context_length"]
        known = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        known |= {theirs: own[ours] for ours, theirs in _YARN.items() if ours in own}
        if deepseek.LOG_MULTIPLIER in own:
            known |= dict.fromkeys(("mscale", "mscale_all_dim"), round(10 * own[deepseek.LOG_MULTIPLIER], 6))
        return known
    linear = kind == "linear" and factor not in (0.0, 1.0)
    if rope_factors is None:
        return {"rope_type": "linear", "factor": factor} if linear else None
    if linear:
        raise BuildError("the file has both rope_freqs.weight and linear rope scaling; only one of them is understood", _HINT)
    original = own.get("rope.scaling.original_context_length", _LLAMA3["original_max_position_embeddings"])
    return _llama3_scaling(rope_factors(), config, original)


def _llama3_scaling(factors: NDArray[np.float32], config: Mapping[str, Any], original: int) -> dict[str, Any]:
    """Llama 3's scaling whose frequency divisors are `factors`; the file holds only those."""
    if factors.shape != ((config["head_dim"] + 1) // 2,):
        raise BuildError(f"rope_freqs.weight {list(factors.shape)} is not of heads of {config['head_dim']} numbers", _HINT)
    scaling = {"rope_type": "llama3", "factor": _plain(float(factors.max())), **_LLAMA3}
    scaling["original_max_position_embeddings"] = original
    frequencies = config["rope_theta"] ** -(np.arange(0, config["head_dim"], 2) / config["head_dim"])
    turns = original * frequencies / (2 * np.pi)  # of each pair within the original context
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    with np.errstate(all="ignore"):  # of factors that are none
        expected = 1 / (kept + (1 - kept) / scaling["factor"])
        as_expected = np.allclose(factors, expected, rtol=1e-3)
    if not as_expected:
        raise BuildError(
            f"rope_freqs.weight {list(factors.shape)} does not hold Llama 3's divisors for factor {scaling['factor']}, "
            f"rope_theta {config['rope_theta']} and {original} original positions",
            _HINT,
        )
    return scaling
