"""What a checkpoint computes, in plain NumPy float32, written from the models' definitions; shares no code with the graph.

All texts go through one layer before the next layer's weights are read, so only a few tensors are in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError

Array = NDArray[np.float32]
BLOCK = 128  # positions whose logits are computed at once: 128 x 49,152 float32 are 25 MB


class Tensor(Protocol):
    """A weight that is read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def float32(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits [len(positions), vocab] of some positions of text number `text`."""

    text: int
    positions: NDArray[np.int64]
    logits: Array


@dataclass(frozen=True)
class Scope:
    """The tensors under a dotted prefix."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""
    observe: Callable[[str, Array], None] = lambda name, x: None  # told of every linear weight and its input

    def __truediv__(self, name: str) -> Scope:
        return Scope(self.tensors, f"{self.prefix}{name}.", self.observe)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def __getitem__(self, name: str) -> Array:
        full = self.prefix + name
        if full not in self.tensors:
            raise BuildError(f"the checkpoint has no weight {full}", "is its config.json of another architecture?")
        return self.tensors[full].float32()


@dataclass(frozen=True)
class Texts:
    """Several texts laid end to end, each a slice of the rows of one matrix."""

    spans: tuple[slice, ...]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Texts:
        ends = np.cumsum([len(t) for t in texts]).tolist()
        return cls(tuple(slice(end - len(t), end) for end, t in zip(ends, texts, strict=True)))

    @property
    def longest(self) -> int:
        return max(int(s.stop) - int(s.start) for s in self.spans)


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
    head = root[head_name(config, root)]
    for number, span in enumerate(laid.spans):
        length = span.stop - span.start
        wanted = np.arange(length) if positions is None else np.asarray(positions[number], np.int64)
        for first in range(0, len(wanted), BLOCK):
            block = wanted[first : first + BLOCK]
            yield Scored(number, block, x[span][block] @ head.T)


def input_maxima(config: Mapping[str, Any], weights: Mapping[str, Tensor], texts: Sequence[Sequence[int]]) -> dict[str, Array]:
    """Largest |x_j| of every linear's input over `texts`: weight name -> [in]; the head is always "lm_head.weight".

    Raises:
        BuildError: as `score`.
    """
    maxima: dict[str, Array] = {}

    def observe(name: str, x: Array) -> None:
        maxima[name] = np.abs(x).max(0)

    maxima["lm_head.weight"] = np.abs(final_states(config, Scope(weights, observe=observe), texts)).max(0)
    return maxima


def final_states(config: Mapping[str, Any], root: Scope, texts: Sequence[Sequence[int]]) -> Array:
    """What the head reads, [tokens of all texts, hidden]: embedding, every layer, the last norm."""
    kind = str(config.get("model_type"))
    if kind not in LAYERS:
        raise BuildError(
            f"no reference for model_type {kind!r}; known: {', '.join(sorted(LAYERS))}",
            "write its layer in verify/reference.py and name it in LAYERS",
        )
    laid = Texts.of(texts)
    x = root["model.embed_tokens.weight"][np.concatenate([np.asarray(t, np.int64) for t in texts])]
    for i in range(int(config["num_hidden_layers"])):
        x = LAYERS[kind](config, root / f"model.layers.{i}", x, laid)
    return rms_norm(x, root["model.norm.weight"], float(config["rms_norm_eps"]))


def head_name(config: Mapping[str, Any], root: Scope) -> str:
    """The head's own weight, or the embedding's where both are one."""
    tied = bool(config.get("tie_word_embeddings")) or "lm_head.weight" not in root
    return "model.embed_tokens.weight" if tied else "lm_head.weight"


def llama_layer(config: Mapping[str, Any], w: Scope, x: Array, texts: Texts) -> Array:
    """One layer of Llama: pre-norm grouped-query attention, then a pre-norm gated MLP, each added to its input."""
    eps = float(config["rms_norm_eps"])
    x = x + grouped_attention(config, w / "self_attn", rms_norm(x, w["input_layernorm.weight"], eps), texts)
    return x + gated_mlp(config, w / "mlp", rms_norm(x, w["post_attention_layernorm.weight"], eps))


def grouped_attention(config: Mapping[str, Any], w: Scope, x: Array, texts: Texts) -> Array:
    """Causal attention in which every `heads / kv_heads` query heads share one key and value head."""
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    dim = head_dim(config)
    query = linear(w, "q_proj", x).reshape(-1, kv_heads, heads // kv_heads, dim)
    key = linear(w, "k_proj", x).reshape(-1, kv_heads, dim)
    value = linear(w, "v_proj", x).reshape(-1, kv_heads, dim)
    angles = rope_angles(config, dim, texts.longest)
    mixed = np.empty_like(query)
    for span in texts.spans:
        n = span.stop - span.start
        q = rotate(query[span], angles[:n, None, None, :])
        k = rotate(key[span], angles[:n, None, :])
        mixed[span] = attend(q, k, value[span])
    return linear(w, "o_proj", mixed.reshape(len(x), heads * dim))


def attend(query: Array, key: Array, value: Array) -> Array:
    """softmax(q k^T / sqrt(dim)) v, causal. query [n, kv_heads, group, dim]; key and value [n, kv_heads, dim]."""
    n, kv_heads, group, dim = query.shape
    rows = query.transpose(1, 2, 0, 3).reshape(kv_heads, group * n, dim)
    scores: Array = (rows @ key.transpose(1, 2, 0)).reshape(kv_heads, group, n, n) * np.float32(1 / math.sqrt(dim))
    scores[..., ~np.tri(n, dtype=bool)] = -np.inf
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    mixed = scores.reshape(kv_heads, group * n, n) @ value.transpose(1, 0, 2)
    return mixed.reshape(kv_heads, group, n, dim).transpose(2, 0, 1, 3)


def gated_mlp(config: Mapping[str, Any], w: Scope, x: Array) -> Array:
    """down(silu(gate(x)) * up(x))."""
    kind = config.get("hidden_act", "silu")
    if kind != "silu":
        raise BuildError(f"the reference knows no activation {kind!r}; known: silu", "add it in verify/reference.py")
    gate = linear(w, "gate_proj", x)
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and x / infinity the right 0
        gate /= 1 + np.exp(-gate)
    return linear(w, "down_proj", gate * linear(w, "up_proj", x))


def linear(w: Scope, name: str, x: Array) -> Array:
    """x W^T, plus the bias where the checkpoint has one."""
    w.observe(f"{w.prefix}{name}.weight", x)
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * gain over the last axis."""
    size: Array = np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps))
    return x / size * gain


def head_dim(config: Mapping[str, Any]) -> int:
    """Numbers a head; where config.json is silent, the hidden size shared among the heads."""
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def rotate(x: Array, angles: NDArray[np.float64]) -> Array:
    """Turn the pairs (x[i], x[i + dim/2]) by `angles` [..., dim/2]."""
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rope_angles(config: Mapping[str, Any], dim: int, length: int) -> NDArray[np.float64]:
    """Angle [length, dim/2] of each position and pair: position x theta^(-2i/dim), after the config's scaling."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    speeds = [theta ** (-2 * i / dim) for i in range(dim // 2)]
    if kind == "linear":
        speeds = [speed / float(rope["factor"]) for speed in speeds]
    elif kind == "llama3":
        speeds = [_llama3_speed(speed, rope) for speed in speeds]
    elif kind != "default":
        raise BuildError(f"the reference knows no RoPE scaling {kind!r}", "add it in verify/reference.py")
    return np.outer(np.arange(length, dtype=np.float64), np.array(speeds))


def _llama3_speed(speed: float, rope: Mapping[str, Any]) -> float:
    """Llama 3.1: waves longer than the old context over `low_freq_factor` are slowed by `factor`, short ones kept."""
    factor, old = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    wavelength = 2 * math.pi / speed
    if wavelength < old / high:
        return speed
    if wavelength > old / low:
        return speed / factor
    share = (old / wavelength - low) / (high - low)
    return (1 - share) * speed / factor + share * speed


Layer = Callable[[Mapping[str, Any], Scope, Array, Texts], Array]
LAYERS: dict[str, Layer] = {"llama": llama_layer}
