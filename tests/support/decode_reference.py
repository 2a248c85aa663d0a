"""A decode step of a dense model in NumPy, rounded where the graph rounds: what the fused kernel is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.uint16] | NDArray[np.uint8]
FP8 = "float8_e4m3fn"
_TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, FP8: ml_dtypes.float8_e4m3fn}


def rounded(values: NDArray[np.floating], dtype: str) -> Floats:
    """To the nearest numbers of `dtype`, held as float32; of eight bits those too large to the largest."""
    return numbers(bits(values, dtype), dtype)


def bits(values: NDArray[np.floating], dtype: str) -> Bits:
    """As they lie in memory."""
    if dtype == FP8:
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return np.clip(values, -448, 448).astype(_TYPES[dtype]).view(np.uint8)
    return values.astype(_TYPES[dtype]).view(np.uint16)


def numbers(stored: Bits, dtype: str) -> Floats:
    """The inverse of `bits`."""
    return stored.view(_TYPES[dtype]).astype(np.float32)


def in_blocks(weight: Floats, bits: int) -> tuple[Floats, NDArray[np.uint8], Floats]:
    """A weight [rows, columns] in codes of so many bits around the middle one, with a scale for each 32 columns of a row.

    Returns:
        What they stand for, the codes as they lie in memory, the scales [rows, columns / 32].
    """
    middle = 1 << (bits - 1)
    split = weight.reshape(len(weight), -1, 32)
    scale = rounded(np.abs(split).max(2) / middle, "float16")  # reaches the lowest code, and is cut off at the highest
    codes = np.clip(np.rint(split / scale[..., None]) + middle, 0, 2 * middle - 1).astype(np.uint8).reshape(weight.shape)
    values = (codes.astype(np.float32) - middle) * np.repeat(scale, 32, 1)
    packed = codes if bits == 8 else codes[:, ::2] | codes[:, 1::2] << 4
    return values, np.ascontiguousarray(packed), scale


@dataclass
class DenseModel:
    """Random weights of a model; everything float32 that `dtype` holds exactly.

    `quantized`: its matrices are in blocks, the head's of eight bits and all others' of four; `weights` has what they stand
    for, and as NAME_scale their scales; `packed` has the codes.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    dtype: str
    bias: bool
    qk_norm: bool
    tied: bool
    epsilon: float = 1e-6
    positions: int = 1024
    quantized: bool = False
    cache: str = ""  # what keys and values are kept in, if not `dtype`
    window: int = 0  # tokens that a query sees; 0: all
    weights: dict[str, Floats] = field(default_factory=dict)
    packed: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(7)
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim

        def draw(name: str, *shape: int, scale: float, mean: float = 0.0) -> None:
            self.weights[name] = rounded(mean + scale * random.standard_normal(shape), self.dtype)

        draw("embedding", self.vocabulary, self.hidden, scale=1)
        draw("norm", self.hidden, scale=0.2, mean=1)

        def pack(name: str, bits: int) -> None:
            if self.quantized:
                found = in_blocks(self.weights[name], bits)
                self.weights[name], self.packed[name], self.weights[f"{name}_scale"] = found

        if not self.tied:
            draw("head", self.vocabulary, self.hidden, scale=0.1)
            pack("head", 8)
        for i in range(self.layers):
            for name, rows, columns in (
                ("query", query, self.hidden), ("key", kv, self.hidden), ("value", kv, self.hidden),
                ("out", self.hidden, query), ("gate", self.intermediate, self.hidden),
                ("up", self.intermediate, self.hidden), ("down", self.hidden, self.intermediate),
            ):  # fmt: skip
                draw(f"{i}.{name}", rows, columns, scale=1.5 / columns**0.5)
                pack(f"{i}.{name}", 4)
                if self.bias and name in ("query", "key", "value"):
                    draw(f"{i}.{name}_bias", rows, scale=0.5)
            for name in ("attention_norm", "mlp_norm"):
                draw(f"{i}.{name}", self.hidden, scale=0.2, mean=1)
            if self.qk_norm:
                for name in ("query_norm", "key_norm"):
                    draw(f"{i}.{name}", self.head_dim, scale=0.2, mean=1)
        angles = np.arange(self.positions)[:, None] * 1e4 ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        self.weights |= {"cosines": rounded(np.cos(angles), self.dtype), "sines": rounded(np.sin(angles), self.dtype)}


def decode(
    model: DenseModel, token: int, past_keys: list[Floats], past_values: list[Floats]
) -> tuple[Floats, list[Floats], list[Floats]]:
    """Logits [vocabulary] after one more token, and of each layer its new row of keys and of values [kv_heads, head_dim].

    Args:
        past_keys: of each layer [tokens, kv_heads, head_dim].
        past_values: likewise.
    """
    w, dtype, position = model.weights, model.dtype, len(past_keys[0])
    cache, seen = model.cache or dtype, slice(-model.window, None)
    cosine, sine = w["cosines"][position], w["sines"][position]

    def norm(x: Floats, gain: Floats) -> Floats:
        return rounded(x / np.sqrt(np.mean(x**2, -1, keepdims=True) + model.epsilon) * gain, dtype)

    def rotate(x: Floats) -> Floats:
        low, high = np.split(x, 2, -1)
        return rounded(np.concatenate([low * cosine - high * sine, high * cosine + low * sine], -1), dtype)

    def project(name: str, x: Floats) -> Floats:
        y = rounded(w[name] @ x, dtype)
        return rounded(y + w[f"{name}_bias"], dtype) if f"{name}_bias" in w else y

    new_keys, new_values = [], []
    x = w["embedding"][token]
    for i in range(model.layers):
        h = norm(x, w[f"{i}.attention_norm"])
        query, key, value = (project(f"{i}.{n}", h).reshape(-1, model.head_dim) for n in ("query", "key", "value"))
        if model.qk_norm:
            query, key = norm(query, w[f"{i}.query_norm"]), norm(key, w[f"{i}.key_norm"])
        query, key, value = rotate(query), rounded(rotate(key), cache), rounded(value, cache)
        new_keys.append(key)
        new_values.append(value)
        keys, values = (np.concatenate([past[i], new[None]])[seen] for past, new in ((past_keys, key), (past_values, value)))
        attended = np.zeros_like(query)
        for head in range(model.heads):
            shared = head // (model.heads // model.kv_heads)
            scores = keys[:, shared] @ query[head] / np.sqrt(model.head_dim)
            weights = np.exp(scores - scores.max())
            attended[head] = rounded(weights @ values[:, shared] / weights.sum(), dtype)
        x = rounded(x + rounded(w[f"{i}.out"] @ attended.ravel(), dtype), dtype)
        h = norm(x, w[f"{i}.mlp_norm"])
        gate, up = rounded(w[f"{i}.gate"] @ h, dtype), rounded(w[f"{i}.up"] @ h, dtype)
        x = rounded(x + rounded(w[f"{i}.down"] @ rounded(rounded(gate / (1 + np.exp(-gate)), dtype) * up, dtype), dtype), dtype)
    return w["embedding" if model.tied else "head"] @ norm(x, w["norm"]), new_keys, new_values
