"""What config.json means, read by the reference itself: shares no reader, no default and no table with the graph.

Written from transformers 5's configuration_llama.py, _mistral.py, _qwen2.py, _qwen3.py and _deepseek_v3.py, and of each the
modeling file for what it does with a key. It checks nothing: a config that the graph's reader let through is read, or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BuildError
from .reference_rope import Turning, turning

Config = Mapping[str, Any]
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Llama, Mistral, Qwen2 or Qwen3."""

    layers: int
    heads: int
    kv_heads: int
    dim: int  # numbers a head
    eps: float
    windows: tuple[int | None, ...]  # of each layer, how many positions a query sees; None: all
    biased: frozenset[str]  # products with a bias
    normalized: bool  # each query and key head, before it is rotated
    turning: Turning


@dataclass(frozen=True, kw_only=True)
class Latent:
    """DeepSeek-V3."""

    layers: int
    heads: int
    nope: int
    rope: int
    value: int
    query_rank: int | None
    rank: int
    eps: float
    inner_eps: float
    biased: frozenset[str]
    interleaved: bool
    dense_layers: int
    every: int  # of the further layers, which have experts
    shared_experts: int
    experts: int
    chosen: int
    groups: int
    chosen_groups: int
    normalized: bool
    factor: float
    turning: Turning


Read = Dense | Latent


def read(config: Config) -> Read:
    """What `config` says.

    Raises:
        BuildError: an architecture or activation that the reference does not know.
    """
    kind = str(config.get("model_type"))
    if kind not in READERS:
        raise BuildError(
            f"no reference for model_type {kind!r}; known: {', '.join(sorted(READERS))}",
            "write its reader in verify/reference_config.py and name it in READERS",
        )
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise BuildError(
            f"the reference knows no activation {config['hidden_act']!r}; known: silu, swish", "correct config.json"
        )
    return READERS[kind](config)


def _dense(
    config: Config, *, longest: int, dim: int | None, windows: tuple[int | None, ...], biased: frozenset[str],
    kv_heads: int | None = None, normalized: bool = False,
) -> Dense:  # fmt: skip
    """What all of them read; the arguments are what each means by silence, or reads in its own way."""
    heads, own_kv = int(config["num_attention_heads"]), config.get("num_key_value_heads", kv_heads)
    size = int(dim or config["hidden_size"] // heads)
    return Dense(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=heads if own_kv is None else int(own_kv),
        dim=size,
        eps=float(config.get("rms_norm_eps", 1e-6)),
        windows=windows,
        biased=biased,
        normalized=normalized,
        turning=turning(config, size, longest),
    )


def llama(config: Config) -> Dense:
    """LlamaConfig: biases by two flags, no windows whatever the config says."""
    biased = _ATTENTION if config.get("attention_bias", False) else frozenset()
    biased |= _MLP if config.get("mlp_bias", False) else frozenset()
    windows = (None,) * int(config["num_hidden_layers"])
    return _dense(config, longest=2048, dim=config.get("head_dim"), windows=windows, biased=biased)


def mistral(config: Config) -> Dense:
    """MistralConfig: one window for all layers, 4,096 positions if not said; never a bias."""
    windows = (config.get("sliding_window", 4096),) * int(config["num_hidden_layers"])
    return _dense(config, longest=131072, dim=config.get("head_dim"), windows=windows, biased=frozenset(), kv_heads=8)


def qwen2(config: Config) -> Dense:
    """Qwen2Config: biases on queries, keys and values whatever the config says."""
    biased = frozenset({"q_proj", "k_proj", "v_proj"})
    return _dense(config, longest=32768, dim=config.get("head_dim"), windows=_qwen_windows(config), biased=biased, kv_heads=32)


def qwen3(config: Config) -> Dense:
    """Qwen3Config: heads of 128 if not said, each normalized."""
    biased = _ATTENTION if config.get("attention_bias", False) else frozenset()
    return _dense(
        config, longest=32768, dim=config.get("head_dim", 128), windows=_qwen_windows(config), biased=biased, kv_heads=32,
        normalized=True,
    )  # fmt: skip


def _qwen_windows(config: Config) -> tuple[int | None, ...]:
    """Of the layers that `layer_types` names, or of those from `max_window_layers` on; only where a switch is on."""
    layers = int(config["num_hidden_layers"])
    size = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    kinds, first = config.get("layer_types"), config.get("max_window_layers", 28)
    if kinds is None:
        return tuple(size if number >= first else None for number in range(layers))
    return tuple(size if kind == "sliding_attention" else None for kind in kinds)


def deepseek_v3(config: Config) -> Latent:
    """DeepseekV3Config; the two norms inside the attention keep DeepseekV3RMSNorm's own epsilon. `moe_layer_freq` is of
    DeepSeek's own code: transformers has no such key."""
    rope = int(config.get("qk_rope_head_dim", 64))
    experts = config["num_local_experts"] if "num_local_experts" in config else config.get("n_routed_experts", 256)
    return Latent(
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        nope=int(config.get("qk_nope_head_dim", 128)),
        rope=rope,
        value=int(config.get("v_head_dim", 128)),
        query_rank=config.get("q_lora_rank", 1536),
        rank=int(config.get("kv_lora_rank", 512)),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        inner_eps=1e-6,
        biased=frozenset({"q_a_proj", "kv_a_proj_with_mqa", "o_proj"} if config.get("attention_bias", False) else ()),
        interleaved=bool(config.get("rope_interleave", True)),
        dense_layers=int(config.get("first_k_dense_replace", 3)),
        every=int(config.get("moe_layer_freq") or 1),
        shared_experts=int(config.get("n_shared_experts", 1) or 0),
        experts=int(experts),
        chosen=int(config.get("num_experts_per_tok", 8)),
        groups=int(config.get("n_group", 8) or 1),
        chosen_groups=int(config.get("topk_group", 4) or 1),
        normalized=bool(config.get("norm_topk_prob", True)),
        factor=float(config.get("routed_scaling_factor", 2.5)),
        turning=turning(config, rope, 4096),
    )


READERS: dict[str, Callable[[Config], Read]] = {
    "llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "deepseek_v3": deepseek_v3,
}  # fmt: skip
