"""Angles of rotary positions, read from config.json by the reference itself: shares no rule and no default with the graph.

Written from transformers 5: `PreTrainedConfig.convert_rope_params_to_dict` and `standardize_rope_params` for which object and
which key counts, `modeling_rope_utils._compute_*_parameters` for the frequencies. `attn_factor` is vLLM's and llama.cpp's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError

Speeds = list[float]  # radians a position of each pair


@dataclass(frozen=True)
class Turning:
    """How heads are rotated."""

    speeds: tuple[float, ...]
    amplitude: float = 1.0  # of the rotated vectors
    softmax_factor: float = 1.0  # of DeepSeek's softmax scale

    def angles(self, length: int) -> NDArray[np.float64]:
        """Radians [length, pairs]."""
        return np.outer(np.arange(length, dtype=np.float64), np.array(self.speeds))


def turning(config: Mapping[str, Any], dim: int, longest: int) -> Turning:
    """How a head of `dim` numbers is rotated in a model whose config.json means `longest` positions where it is silent.

    Raises:
        BuildError: a scaling that the reference does not know, or that lacks a key.
    """
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    theta = rope["rope_theta"] if "rope_theta" in rope else config.get("rope_theta", 10000.0)
    kind = rope["rope_type"] if "rope_type" in rope else rope.get("type", "default")
    positions = int(config.get("max_position_embeddings", longest))
    old = config.get("original_max_position_embeddings", rope.get("original_max_position_embeddings", positions))
    speeds = [float(theta) ** (-2 * pair / dim) for pair in range(dim // 2)]
    try:
        if kind in ("default", "dynamic"):  # a dynamic base grows only in texts longer than the model's positions
            return Turning(tuple(speeds))
        return _SCALED[kind](rope, speeds, float(theta), float(old), float(positions))
    except KeyError as error:
        raise BuildError(f"the reference knows no RoPE scaling {kind!r}, or it lacks {error}", "correct config.json") from error


def _linear(rope: Mapping[str, Any], speeds: Speeds, theta: float, old: float, positions: float) -> Turning:
    return Turning(tuple(speed / float(rope["factor"]) for speed in speeds))


def _llama3(rope: Mapping[str, Any], speeds: Speeds, theta: float, old: float, positions: float) -> Turning:
    """Waves longer than the old context over `low_freq_factor` are slowed by `factor`, short ones kept."""
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])

    def scaled(speed: float) -> float:
        wavelength = 2 * math.pi / speed
        if wavelength < old / high:
            return speed
        if wavelength > old / low:
            return speed / factor
        share = (old / wavelength - low) / (high - low)
        return (1 - share) * speed / factor + share * speed

    return Turning(tuple(map(scaled, speeds)))


def _longrope(rope: Mapping[str, Any], speeds: Speeds, theta: float, old: float, positions: float) -> Turning:
    """Of texts within the old context: each pair has its own short factor."""
    factor, amplitude = rope.get("factor"), rope.get("attention_factor")
    grown = positions / old if factor is None else float(factor)
    if amplitude is None:
        amplitude = 1.0 if grown <= 1 else math.sqrt(1 + math.log(grown) / math.log(old))
    slowed = (speed / float(short) for speed, short in zip(speeds, rope["short_factor"], strict=True))
    return Turning(tuple(slowed), float(amplitude))


def _yarn(rope: Mapping[str, Any], speeds: Speeds, theta: float, old: float, positions: float) -> Turning:
    """Peng et al. 2023: slow pairs are slowed by `factor`, fast ones kept, between them a ramp over the pairs."""
    factor, dim = positions / old if rope["factor"] is None else float(rope["factor"]), 2 * len(speeds)

    def pair_turning(turns: float) -> float:
        """The pair (a fraction) that makes so many turns in the old context."""
        return dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_turning(float(rope.get("beta_fast") or 32)), pair_turning(float(rope.get("beta_slow") or 1))
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    if first == last:
        last += 0.001
    shares = [min(max((pair - first) / (last - first), 0.0), 1.0) for pair in range(len(speeds))]
    scaled = [speed / factor * share + speed * (1 - share) for speed, share in zip(speeds, shares, strict=True)]

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    one, all_dim, amplitude = rope.get("mscale"), rope.get("mscale_all_dim"), rope.get("attention_factor")
    if amplitude is None:
        amplitude = magnitude(one) / magnitude(all_dim) if one and all_dim else magnitude(1)
        attn_factor = rope.get("attn_factor")
        amplitude *= 1.0 if attn_factor is None else float(attn_factor)
    return Turning(tuple(scaled), float(amplitude), magnitude(all_dim) ** 2 if all_dim else 1.0)


_SCALED: dict[str, Callable[[Mapping[str, Any], Speeds, float, float, float], Turning]] = {
    "linear": _linear, "llama3": _llama3, "longrope": _longrope, "yarn": _yarn,
}  # fmt: skip
