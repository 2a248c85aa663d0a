"""One layer of DeepSeek-V3 in plain NumPy: keys and values written out for all heads, experts one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .reference_parts import Array, Scope, Texts, gated_mlp, linear, rms_norm, rope_angles, rotate


def deepseek_layer(config: Mapping[str, Any], w: Scope, x: Array, texts: Texts, number: int) -> Array:
    """Pre-norm latent attention, then a dense MLP or a mixture of experts."""
    eps = float(config["rms_norm_eps"])
    x = x + latent_attention(config, w / "self_attn", rms_norm(x, w["input_layernorm.weight"], eps), texts)
    h = rms_norm(x, w["post_attention_layernorm.weight"], eps)
    is_dense = number < int(config["first_k_dense_replace"]) or number % int(config.get("moe_layer_freq", 1))
    return x + (gated_mlp(config, w / "mlp", h) if is_dense else mixture(config, w / "mlp", h))


def latent_attention(config: Mapping[str, Any], w: Scope, x: Array, texts: Texts) -> Array:
    """Attention whose keys and values are made from a latent vector and a rotary part that all heads share."""
    heads, eps = int(config["num_attention_heads"]), float(config["rms_norm_eps"])
    nope, rope, v = (int(config[name]) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    lora = int(config["kv_lora_rank"])
    if config.get("q_lora_rank") is None:
        query = linear(w, "q_proj", x)
    else:
        query = linear(w, "q_b_proj", rms_norm(linear(w, "q_a_proj", x), w["q_a_layernorm.weight"], eps))
    query = query.reshape(len(x), heads, nope + rope)
    shared = linear(w, "kv_a_proj_with_mqa", x)
    latent = rms_norm(shared[:, :lora], w["kv_a_layernorm.weight"], eps)
    written = linear(w, "kv_b_proj", latent).reshape(len(x), heads, nope + v)
    angles, amplitude, softmax_factor = positions(config, rope, texts.longest)
    scale = np.float32(softmax_factor / math.sqrt(nope + rope))
    paired = bool(config.get("rope_interleave", True))
    mixed = np.empty((len(x), heads, v), x.dtype)
    for span in texts.spans:
        turns = angles[: span.stop - span.start, None]
        q_rope = amplitude * rotate(_halves(query[span, :, nope:], paired), turns)
        k_rope = amplitude * rotate(_halves(shared[span, None, lora:], paired), turns)
        seen = ~np.tri(span.stop - span.start, dtype=bool)
        for head in range(heads):  # a head at a time: the scores of one are n x n
            scores = (query[span, head, :nope] @ written[span, head, :nope].T + q_rope[:, head] @ k_rope[:, 0].T) * scale
            scores[seen] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[span, head] = scores / scores.sum(-1, keepdims=True) @ written[span, head, nope:]
    return linear(w, "o_proj", mixed.reshape(len(x), heads * v))


def _halves(x: Array, paired: bool) -> Array:
    """Rotary pairs side by side -> firsts, then seconds: the same rotation of q and k leaves their products as they are."""
    return np.concatenate([x[..., ::2], x[..., 1::2]], -1) if paired else x


def mixture(config: Mapping[str, Any], w: Scope, x: Array) -> Array:
    """The shared experts' result plus the weighted ones of the experts that the router chose."""
    weights = routing(config, x @ w["gate.weight"].T, _bias(w))
    y = gated_mlp(config, w / "shared_experts", x) if config.get("n_shared_experts") else np.zeros_like(x)
    for expert in np.flatnonzero(weights.any(0)).tolist():
        rows = np.flatnonzero(weights[:, expert])
        y[rows] += weights[rows, expert, None] * gated_mlp(config, w / f"experts.{expert}", x[rows])
    return y


def _bias(w: Scope) -> Array | None:
    name = "gate.e_score_correction_bias"
    if name not in w:
        return None
    return w[name]


def routing(config: Mapping[str, Any], logits: Array, bias: Array | None) -> Array:
    """Weight of every expert for every token [tokens, experts], zero where it was not chosen.

    Raises:
        BuildError: a scoring function or method of choice that the reference does not know.
    """
    method, scoring = config.get("topk_method", "noaux_tc"), config.get("scoring_func", "sigmoid")
    if method != "noaux_tc" or scoring not in ("sigmoid", "softmax"):
        raise BuildError(f"the reference knows no routing {method!r} by {scoring!r}", "add it in verify/reference_deepseek.py")
    wide = logits.astype(np.float64)
    if scoring == "sigmoid":
        scores = 1 / (1 + np.exp(-wide))
    else:
        scores = np.exp(wide - wide.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
    choice = scores if bias is None else scores + bias
    groups = int(config.get("n_group") or 1)
    by_group = np.sort(choice.reshape(len(choice), groups, -1), -1)[..., -2:].sum(-1)
    best_groups = np.argsort(-by_group, -1, kind="stable")[:, : int(config.get("topk_group") or 1)]
    allowed = np.zeros_like(by_group, bool)
    np.put_along_axis(allowed, best_groups, True, -1)
    choice = np.where(np.repeat(allowed, choice.shape[1] // groups, -1), choice, -np.inf)
    chosen = np.argsort(-choice, -1, kind="stable")[:, : int(config["num_experts_per_tok"])]
    picked = np.take_along_axis(scores, chosen, -1)
    if config.get("norm_topk_prob", True):
        picked /= picked.sum(-1, keepdims=True) + 1e-20
    weights = np.zeros_like(logits)
    np.put_along_axis(weights, chosen, picked * float(config.get("routed_scaling_factor", 1.0)), -1)
    return weights


def positions(config: Mapping[str, Any], dim: int, length: int) -> tuple[NDArray[np.float64], np.float32, float]:
    """Angles [length, dim/2], and YaRN's factors (Peng et al. 2023) of rotated vectors and of the softmax scale."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if (rope.get("rope_type") or rope.get("type")) != "yarn":
        return rope_angles(config, dim, length), np.float32(1), 1.0
    theta, factor = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))), float(rope["factor"])
    old = float(rope["original_max_position_embeddings"])

    def pair_turning(turns: float) -> float:
        """The pair (a fraction) that makes so many turns in the old context."""
        return dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_turning(float(rope.get("beta_fast") or 32)), pair_turning(float(rope.get("beta_slow") or 1))
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    speeds = []
    for pair in range(dim // 2):
        speed = theta ** (-2 * pair / dim)
        slowed = min(max((pair - first) / max(last - first, 0.001), 0.0), 1.0)
        speeds.append(speed / factor * slowed + speed * (1 - slowed))

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    one, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    amplitude = rope.get("attention_factor")
    if amplitude is None:
        amplitude = magnitude(one) / magnitude(all_dim) if one and all_dim else magnitude(1)
        amplitude *= float(rope.get("attn_factor", 1.0))
    softmax_factor = magnitude(all_dim) ** 2 if all_dim else 1.0
    return np.outer(np.arange(length, dtype=np.float64), np.array(speeds)), np.float32(amplitude), softmax_factor


def mtp_states(config: Mapping[str, Any], root: Scope, hidden: Array, followers: NDArray[np.int64], texts: Texts) -> Array:
    """What the head reads to predict the token after the next (DeepSeek-V3, section 2.2), [tokens of all texts, hidden].

    Args:
        hidden: what the model's own head reads, or for a further token this function's result.
        followers: the token that follows each position.
    """
    number, eps = int(config["num_hidden_layers"]), float(config["rms_norm_eps"])
    w = root / f"model.layers.{number}"
    embedded = rms_norm(root["model.embed_tokens.weight"][followers], w["enorm.weight"], eps)
    joined = np.concatenate([embedded, rms_norm(hidden, w["hnorm.weight"], eps)], -1)
    return rms_norm(deepseek_layer(config, w, linear(w, "eh_proj", joined), texts, number), w["shared_head.norm.weight"], eps)
