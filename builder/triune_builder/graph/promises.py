"""The weights that a config.json promises: names and shapes by architecture. Written apart from the graphs, which it checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BuildError
from .weights import Source

Shape = tuple[int, ...]
_SHOWN = 10  # problems that an error lists


@dataclass
class Promised:
    """What a checkpoint must hold and what it may."""

    required: dict[str, Shape] = field(default_factory=dict)
    optional: dict[str, Shape] = field(default_factory=dict)  # the graph adds a bias where there is one

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = False) -> None:
        """A weight [rows, columns], and its bias, which is required or allowed."""
        self.required[f"{name}.weight"] = (rows, columns)
        (self.required if bias else self.optional)[f"{name}.bias"] = (rows,)

    def vectors(self, size: int, *names: str) -> None:
        """Weights of normalizations."""
        self.required.update(dict.fromkeys(names, (size,)))


def promised_weights(config: Mapping[str, Any]) -> Promised | None:
    """What the checkpoint of that config.json holds; None for an architecture that is not known here."""
    layer = _LAYERS.get(str(config.get("model_type")))
    if layer is None:
        return None
    promised, hidden, vocabulary = Promised(), config["hidden_size"], config["vocab_size"]
    promised.required["model.embed_tokens.weight"] = (vocabulary, hidden)
    promised.vectors(hidden, "model.norm.weight")
    head = promised.optional if config.get("tie_word_embeddings", False) else promised.required
    head["lm_head.weight"] = (vocabulary, hidden)
    extra = config.get("num_nextn_predict_layers") or 0
    for number in range(config["num_hidden_layers"] + extra):
        name = f"model.layers.{number}"
        promised.vectors(hidden, f"{name}.input_layernorm.weight", f"{name}.post_attention_layernorm.weight")
        layer(promised, config, name, number)
        if number >= config["num_hidden_layers"]:
            _predictor(promised, config, name)
    return promised


def check_weights(config: Mapping[str, Any], weights: Mapping[str, Source]) -> None:
    """Compare a checkpoint's weights with what its config.json promises; reads no weight.

    Raises:
        BuildError: names missing, spare and misshapen weights, all in one.
    """
    promised = promised_weights(config)
    if promised is None:
        return
    known = promised.required | promised.optional
    missing = [name for name in promised.required if name not in weights]
    spare = [name for name in weights if name not in known]
    misshapen = [f"{name} is {list(weights[name].shape)}, not {list(shape)}"
                 for name, shape in known.items() if name in weights and tuple(weights[name].shape) != shape]  # fmt: skip
    kinds = (("missing", missing), ("spare", spare), ("misshapen", misshapen))
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]
    if problems:
        raise BuildError(
            f"the weights are not those that config.json promises of {config.get('model_type')}: {'; '.join(problems)}",
            "is the checkpoint complete, and of the model and version of its config.json?",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _grouped_attention(promised: Promised, config: Mapping[str, Any], name: str, *, bias: bool, out_bias: bool) -> None:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads, dim = config.get("num_key_value_heads") or heads, _head_dim(config)
    promised.linear(f"{name}.q_proj", heads * dim, hidden, bias=bias)
    promised.linear(f"{name}.k_proj", kv_heads * dim, hidden, bias=bias)
    promised.linear(f"{name}.v_proj", kv_heads * dim, hidden, bias=bias)
    promised.linear(f"{name}.o_proj", hidden, heads * dim, bias=out_bias)


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _gated_mlp(promised: Promised, config: Mapping[str, Any], name: str, inner: int, *, bias: bool = False) -> None:
    hidden = config["hidden_size"]
    promised.linear(f"{name}.gate_proj", inner, hidden, bias=bias)
    promised.linear(f"{name}.up_proj", inner, hidden, bias=bias)
    promised.linear(f"{name}.down_proj", hidden, inner, bias=bias)


def _llama(promised: Promised, config: Mapping[str, Any], name: str, number: int) -> None:
    bias = bool(config.get("attention_bias", False))
    _grouped_attention(promised, config, f"{name}.self_attn", bias=bias, out_bias=bias)
    _gated_mlp(promised, config, f"{name}.mlp", config["intermediate_size"], bias=bool(config.get("mlp_bias", False)))


def _qwen2(promised: Promised, config: Mapping[str, Any], name: str, number: int) -> None:
    _grouped_attention(promised, config, f"{name}.self_attn", bias=True, out_bias=False)
    _gated_mlp(promised, config, f"{name}.mlp", config["intermediate_size"])


def _qwen3(promised: Promised, config: Mapping[str, Any], name: str, number: int) -> None:
    _llama(promised, config, name, number)
    promised.vectors(_head_dim(config), f"{name}.self_attn.q_norm.weight", f"{name}.self_attn.k_norm.weight")


def _deepseek_v3(promised: Promised, config: Mapping[str, Any], name: str, number: int) -> None:
    hidden, heads, lora = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    bias, query, attention = bool(config.get("attention_bias", False)), config.get("q_lora_rank"), f"{name}.self_attn"
    if query is None:
        promised.linear(f"{attention}.q_proj", heads * (nope + rope), hidden)
    else:
        promised.linear(f"{attention}.q_a_proj", query, hidden, bias=bias)
        promised.vectors(query, f"{attention}.q_a_layernorm.weight")
        promised.linear(f"{attention}.q_b_proj", heads * (nope + rope), query)
    promised.linear(f"{attention}.kv_a_proj_with_mqa", lora + rope, hidden, bias=bias)
    promised.vectors(lora, f"{attention}.kv_a_layernorm.weight")
    promised.linear(f"{attention}.kv_b_proj", heads * (nope + value), lora)
    promised.linear(f"{attention}.o_proj", hidden, heads * value, bias=bias)
    if number < config["first_k_dense_replace"] or number % config.get("moe_layer_freq", 1):
        _gated_mlp(promised, config, f"{name}.mlp", config["intermediate_size"])
        return
    inner, experts, shared = config["moe_intermediate_size"], config["n_routed_experts"], config.get("n_shared_experts") or 0
    promised.required[f"{name}.mlp.gate.weight"] = (experts, hidden)
    promised.optional[f"{name}.mlp.gate.e_score_correction_bias"] = (experts,)
    for expert in range(experts):
        _gated_mlp(promised, config, f"{name}.mlp.experts.{expert}", inner)
    if shared:
        _gated_mlp(promised, config, f"{name}.mlp.shared_experts", inner * shared)


def _predictor(promised: Promised, config: Mapping[str, Any], name: str) -> None:
    """What a multi-token prediction layer has besides a layer's own; the table and the head may be copies of the model's."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    promised.vectors(hidden, f"{name}.enorm.weight", f"{name}.hnorm.weight", f"{name}.shared_head.norm.weight")
    promised.linear(f"{name}.eh_proj", hidden, 2 * hidden)
    promised.optional |= dict.fromkeys((f"{name}.embed_tokens.weight", f"{name}.shared_head.head.weight"), (vocabulary, hidden))


_LAYERS: dict[str, Callable[[Promised, Mapping[str, Any], str, int], None]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "deepseek_v3": _deepseek_v3,
}
