"""Random configs of tiny models: any key may be missing or null where that means something, and rotary keys are many."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from support.golden_cases import BASES
from triune_builder.graph.arch import deepseek_config, llama, mistral, qwen2, qwen3
from triune_builder.graph.keys import REFUSED, Key

KEYS: dict[str, dict[str, Key]] = {
    "llama": llama.KEYS, "mistral": mistral.KEYS, "qwen2": qwen2.KEYS, "qwen3": qwen3.KEYS, "deepseek_v3": deepseek_config.KEYS,
}  # fmt: skip
SIZES = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
POOLS: dict[str, list[Any]] = {  # values of keys whose others do not fit the rest, or are not built
    "rms_norm_eps": [1e-6, 1e-5, 1e-2, 1, 0.0], "hidden_act": ["silu", "swish"], "num_key_value_heads": [1, 2, 4],
    "head_dim": [2, 16, 64], "max_position_embeddings": [64, 300, 4096], "sliding_window": [0, 1, 7, 300],
    "max_window_layers": [0, 1, 2, 28], "n_group": [1, 2, 4, 8], "topk_group": [1, 2, 4], "num_experts_per_tok": [1, 2, 3],
    "n_routed_experts": [8, 32], "n_shared_experts": [0, 1, 2], "first_k_dense_replace": [0, 1, 3], "moe_layer_freq": [1, 2],
    "routed_scaling_factor": [1, 2.5, 16.0], "q_lora_rank": [8, 24], "kv_lora_rank": [8, 16], "qk_nope_head_dim": [8, 16],
    "qk_rope_head_dim": [8, 16], "v_head_dim": [8, 12], "scoring_func": ["sigmoid"], "topk_method": ["noaux_tc"],
    "num_nextn_predict_layers": [0, 1, 2], "moe_intermediate_size": [8],
    "layer_types": [["full_attention", "sliding_attention", "full_attention"][:n] for n in (2, 3)],
    "use_mrope": [False], "rope_interleaved": [False], "use_sliding_window": [True, False],
}  # fmt: skip
NUMBERS = st.sampled_from([0.5, 1, 1.0, 2.0, 4, 40.0])
SIZED = st.none() | NUMBERS | st.just(0)
ROPE_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "rope_type": st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn", "longrope"]),
    "type": st.sampled_from(["linear", "yarn"]),
    "rope_theta": st.sampled_from([10000.0, 500, 1e6]),
    "factor": NUMBERS,
    "original_max_position_embeddings": st.sampled_from([4, 16, 64, 300]),
    "low_freq_factor": st.just(1.0),
    "high_freq_factor": st.just(4.0),
    "attention_factor": SIZED,
    "beta_fast": SIZED,
    "beta_slow": SIZED,
    "mscale": SIZED,
    "mscale_all_dim": SIZED,
    "truncate": st.sampled_from([True, False, None]),
    "attn_factor": st.sampled_from([None, 0.87, 2]),
    "short_factor": st.just([1.0, 2.0, 3.0, 4.0]),
    "long_factor": st.just([9.0] * 4),
    "finetuned": st.booleans(),
}


def ropes() -> st.SearchStrategy[Any]:
    """An object of rotary parameters, half of the time of a type whose keys are there."""
    likely = ("rope_type", "factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor")
    whole = st.fixed_dictionaries({k: ROPE_PARTS[k] for k in likely},
                                  optional={k: v for k, v in ROPE_PARTS.items() if k not in likely})  # fmt: skip
    return st.none() | st.just({}) | whole | st.fixed_dictionaries({}, optional=ROPE_PARTS)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config of which any key may be missing or null where that means something."""
    kind = draw(st.sampled_from(sorted(BASES)))
    config: dict[str, Any] = {"model_type": kind, **BASES[kind]}
    for name, key in KEYS[kind].items():
        if name in SIZES:
            continue
        choices: list[Any] = [("value", v) for v in POOLS.get(name, [True, False])]
        choices += [("as it is", None)] * (name in config) + [("missing", None)] * (key.missing is not REFUSED)
        choices += [("null", None)] * (key.null is not REFUSED)
        what, value = draw(st.sampled_from(choices))
        if what == "missing":
            config.pop(name, None)
        elif what != "as it is":
            config[name] = value
    for name, values in (("rope_scaling", ropes()), ("rope_parameters", ropes()), ("rope_theta", st.sampled_from([500, 1e4])),
                         ("original_max_position_embeddings", st.sampled_from([8, 64]))):  # fmt: skip
        config.pop(name, None)
        if draw(st.booleans()):
            config[name] = draw(values)
    return config
