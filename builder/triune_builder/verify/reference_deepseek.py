"""One layer of DeepSeek-V3 in plain NumPy: keys and values written out for all heads, experts one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reference_config import Latent, deepseek_v3
from .reference_parts import Array, Scope, Texts, gated_mlp, linear, rms_norm, rotate


def deepseek_layer(model: Latent, w: Scope, x: Array, texts: Texts, number: int) -> Array:
    """Pre-norm latent attention, then a dense MLP or a mixture of experts."""
    x = x + latent_attention(model, w / "self_attn", rms_norm(x, w["input_layernorm.weight"], model.eps), texts)
    h = rms_norm(x, w["post_attention_layernorm.weight"], model.eps)
    # Experts are in every layer behind the first ones, but for those that `every` leaves out and that are stored as dense.
    left_out = number % model.every != 0 and "mlp.gate.weight" not in w
    is_dense = number < model.dense_layers or left_out
    return x + (gated_mlp(w / "mlp", h) if is_dense else mixture(model, w / "mlp", h))


def latent_attention(model: Latent, w: Scope, x: Array, texts: Texts) -> Array:
    """Attention whose keys and values are made from a latent vector and a rotary part that all heads share."""
    heads, nope, rope, v = model.heads, model.nope, model.rope, model.value
    if model.query_rank is None:
        query = linear(w, "q_proj", x)
    else:
        low = rms_norm(linear(w, "q_a_proj", x, model.biased), w["q_a_layernorm.weight"], model.inner_eps)
        query = linear(w, "q_b_proj", low)
    query = query.reshape(len(x), heads, nope + rope)
    shared = linear(w, "kv_a_proj_with_mqa", x, model.biased)
    latent = rms_norm(shared[:, : model.rank], w["kv_a_layernorm.weight"], model.inner_eps)
    written = linear(w, "kv_b_proj", latent).reshape(len(x), heads, nope + v)
    angles, amplitude = model.turning.angles(texts.longest), np.float32(model.turning.amplitude)
    scale = np.float32(model.turning.softmax_factor / math.sqrt(nope + rope))
    paired = model.interleaved
    mixed = np.empty((len(x), heads, v), x.dtype)
    for span in texts.spans:
        turns = angles[: span.stop - span.start, None]
        q_rope = amplitude * rotate(_halves(query[span, :, nope:], paired), turns)
        k_rope = amplitude * rotate(_halves(shared[span, None, model.rank :], paired), turns)
        seen = ~np.tri(span.stop - span.start, dtype=bool)
        for head in range(heads):  # a head at a time: the scores of one are n x n
            scores = (query[span, head, :nope] @ written[span, head, :nope].T + q_rope[:, head] @ k_rope[:, 0].T) * scale
            scores[seen] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[span, head] = scores / scores.sum(-1, keepdims=True) @ written[span, head, nope:]
    return linear(w, "o_proj", mixed.reshape(len(x), heads * v), model.biased)


def _halves(x: Array, paired: bool) -> Array:
    """Rotary pairs side by side -> firsts, then seconds: the same rotation of q and k leaves their products as they are."""
    return np.concatenate([x[..., ::2], x[..., 1::2]], -1) if paired else x


def mixture(model: Latent, w: Scope, x: Array) -> Array:
    """The shared experts' result plus the weighted ones of the experts that the router chose."""
    weights = routing(model, x @ w["gate.weight"].T, _bias(w))
    y = gated_mlp(w / "shared_experts", x) if model.shared_experts else np.zeros_like(x)
    for expert in np.flatnonzero(weights.any(0)).tolist():
        rows = np.flatnonzero(weights[:, expert])
        y[rows] += weights[rows, expert, None] * gated_mlp(w / f"experts.{expert}", x[rows])
    return y


def _bias(w: Scope) -> Array | None:
    name = "gate.e_score_correction_bias"
    if name not in w:
        return None
    return w[name]


def routing(model: Latent, logits: Array, bias: Array | None) -> Array:
    """Weight of every expert for every token [tokens, experts], zero where it was not chosen."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    choice = scores if bias is None else scores + bias
    by_group = np.sort(choice.reshape(len(choice), model.groups, -1), -1)[..., -2:].sum(-1)
    best_groups = np.argsort(-by_group, -1, kind="stable")[:, : model.chosen_groups]
    allowed = np.zeros_like(by_group, bool)
    np.put_along_axis(allowed, best_groups, True, -1)
    choice = np.where(np.repeat(allowed, choice.shape[1] // model.groups, -1), choice, -np.inf)
    chosen = np.argsort(-choice, -1, kind="stable")[:, : model.chosen]
    picked = np.take_along_axis(scores, chosen, -1)
    if model.normalized:
        picked /= picked.sum(-1, keepdims=True) + 1e-20
    weights = np.zeros_like(logits)
    np.put_along_axis(weights, chosen, picked * model.factor, -1)
    return weights


def mtp_states(config: Mapping[str, Any], root: Scope, hidden: Array, followers: NDArray[np.int64], texts: Texts) -> Array:
    """What the head reads to predict the token after the next (DeepSeek-V3, section 2.2), [tokens of all texts, hidden].

    Args:
        hidden: what the model's own head reads, or for a further token this function's result.
        followers: the token that follows each position.
    """
    model = deepseek_v3(config)
    w = root / f"model.layers.{model.layers}"
    embedded = rms_norm(root["model.embed_tokens.weight"][followers], w["enorm.weight"], model.eps)
    joined = np.concatenate([embedded, rms_norm(hidden, w["hnorm.weight"], model.eps)], -1)
    x = deepseek_layer(model, w, linear(w, "eh_proj", joined), texts, model.layers)
    return rms_norm(x, w["shared_head.norm.weight"], model.eps)
