"""What a checkpoint computes, in plain NumPy, written from the models' definitions; shares no code with the graph,
and reads config.json by itself.

In float32, but for the calibration. All texts go through one layer before the next layer's weights are read, so only a few
tensors are in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reference_config import Dense, read
from .reference_deepseek import deepseek_layer, mtp_states
from .reference_parts import Array as Array
from .reference_parts import Observe, Scope, Texts, gated_mlp, linear, rms_norm, rotate
from .reference_parts import Tensor as Tensor

BLOCK = 128  # positions whose logits are computed at once: 128 x 49,152 float32 are 25 MB


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits [len(positions), vocab] of some positions of text number `text`."""

    text: int
    positions: NDArray[np.int64]
    logits: Array


def score(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    texts: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]] | None = None,
) -> Iterator[Scored]:
    """Logits of `texts` (token ids) at `positions` of each (default: all), in blocks, text after text.

    Raises:
        BuildError: an architecture, RoPE scaling or activation that the reference does not know; a missing weight.
    """
    root, laid = Scope(weights), Texts.of(texts)
    x = final_states(config, root, texts)
    head = root[head_name(root)]
    for number, span in enumerate(laid.spans):
        length = span.stop - span.start
        wanted = np.arange(length) if positions is None else np.asarray(positions[number], np.int64)
        for first in range(0, len(wanted), BLOCK):
            block = wanted[first : first + BLOCK]
            yield Scored(number, block, x[span][block] @ head.T)


@np.errstate(all="ignore")  # as in `verify`
def observe_inputs(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], texts: Sequence[Sequence[int]], observe: Observe
) -> None:
    """Tell `observe` once of every linear the weight's name and its input over `texts`, float64 [tokens of all texts, in].

    The head is always "lm_head.weight"; an expert's input has the tokens that chose it. In float64, so that hardly more
    than the last of its bits depends on the processor's own order of summing.

    Raises:
        BuildError: as `score`.
    """
    root = Scope(weights, observe=observe)
    hidden = final_states(config, root, texts, np.float64)
    observe("lm_head.weight", hidden)
    if f"model.layers.{read(config).layers}.eh_proj.weight" in weights:  # the layer of multi-token prediction
        followers = np.concatenate([np.roll(np.asarray(t, np.int64), -1) for t in texts])
        mtp_states(config, root, hidden, followers, Texts.of(texts))


def final_states(
    config: Mapping[str, Any], root: Scope, texts: Sequence[Sequence[int]], dtype: type[np.floating[Any]] = np.float32
) -> Array:
    """What the head reads, [tokens of all texts, hidden]: embedding, every layer, the last norm.

    Args:
        dtype: of the arithmetic.
    """
    model = read(config)
    laid = Texts.of(texts)
    x = root["model.embed_tokens.weight"][np.concatenate([np.asarray(t, np.int64) for t in texts])].astype(dtype)
    for i in range(model.layers):
        w = root / f"model.layers.{i}"
        x = dense_layer(model, w, x, laid, i) if isinstance(model, Dense) else deepseek_layer(model, w, x, laid, i)
    return rms_norm(x, root["model.norm.weight"], model.eps)


def head_name(root: Scope) -> str:
    """The head's own weight if it is stored, as transformers has it whatever `tie_word_embeddings` says; else the table's."""
    return "lm_head.weight" if "lm_head.weight" in root else "model.embed_tokens.weight"


def dense_layer(model: Dense, w: Scope, x: Array, texts: Texts, number: int) -> Array:
    """One layer of Llama, Mistral or Qwen: pre-norm grouped-query attention, then a pre-norm gated MLP, each added to its
    input."""
    h = rms_norm(x, w["input_layernorm.weight"], model.eps)
    x = x + grouped_attention(model, w / "self_attn", h, texts, model.windows[number])
    return x + gated_mlp(w / "mlp", rms_norm(x, w["post_attention_layernorm.weight"], model.eps), model.biased)


def grouped_attention(model: Dense, w: Scope, x: Array, texts: Texts, window: int | None) -> Array:
    """Causal attention in which every `heads / kv_heads` query heads of `dim` numbers share one key and value head."""
    heads, kv_heads, dim = model.heads, model.kv_heads, model.dim
    query = linear(w, "q_proj", x, model.biased).reshape(-1, kv_heads, heads // kv_heads, dim)
    key = linear(w, "k_proj", x, model.biased).reshape(-1, kv_heads, dim)
    value = linear(w, "v_proj", x, model.biased).reshape(-1, kv_heads, dim)
    if model.normalized:
        query = rms_norm(query, w["q_norm.weight"], model.eps)
        key = rms_norm(key, w["k_norm.weight"], model.eps)
    angles, amplitude = model.turning.angles(texts.longest), np.float32(model.turning.amplitude)
    mixed = np.empty_like(query)
    for span in texts.spans:
        n = span.stop - span.start
        q = amplitude * rotate(query[span], angles[:n, None, None, :])
        k = amplitude * rotate(key[span], angles[:n, None, :])
        mixed[span] = attend(q, k, value[span], window)
    return linear(w, "o_proj", mixed.reshape(len(x), heads * dim), model.biased)


def attend(query: Array, key: Array, value: Array, window: int | None = None) -> Array:
    """softmax(q k^T / sqrt(dim)) v, causal. query [n, kv_heads, group, dim]; key and value [n, kv_heads, dim]."""
    n, kv_heads, group, dim = query.shape
    rows = query.transpose(1, 2, 0, 3).reshape(kv_heads, group * n, dim)
    scores: Array = (rows @ key.transpose(1, 2, 0)).reshape(kv_heads, group, n, n) * np.float32(1 / math.sqrt(dim))
    scores[..., ~np.tri(n, dtype=bool)] = -np.inf
    if window is not None:
        scores[..., np.tri(n, k=-window, dtype=bool)] = -np.inf
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    mixed = scores.reshape(kv_heads, group * n, n) @ value.transpose(1, 0, 2)
    return mixed.reshape(kv_heads, group, n, dim).transpose(2, 0, 1, 3)
