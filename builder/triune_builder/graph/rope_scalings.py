"""The published scalings of rotary frequencies, as transformers' modeling_rope_utils.py computes them. Pure NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]  # [dim/2], radians a position


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's frequency scaling: long waves are stretched by `factor`, short ones kept, between them a ramp."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)  # in the original context
        ramp = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = np.clip(ramp, 0.0, 1.0)
        return keep * frequencies + (1 - keep) * frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023): all positions divided by `factor`."""

    factor: float

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class DynamicScaling:
    """Dynamic NTK scaling: the base grows with the text once that is longer than `limit`; up to there nothing changes.

    Beyond it keys that were rotated earlier would have to be rotated anew, so that is not built.
    """

    factor: float
    limit: int  # max_position_embeddings

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        return frequencies


@dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """LongRoPE (Ding et al. 2024): each pair is slowed by a factor of its own. There is a second set of factors for texts of
    more than `limit` positions, which would rotate earlier keys anew and so is not built."""

    short_factor: tuple[float, ...]
    limit: int  # original_max_position_embeddings
    factor: float  # of the context's growth
    attention_factor: float | None = None

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        slowed: Frequencies = frequencies / np.array(self.short_factor, np.float64)
        return slowed

    @property
    def amplitude(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.limit)) if self.factor > 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): slow pairs are interpolated by `factor`, fast ones kept, between them a ramp over the pairs.

    `amplitude` and `softmax_factor` counter that attention gets flatter over longer texts.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0  # turns in the original context from which a pair is kept
    beta_slow: float = 1.0  # turns up to which it is interpolated
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    attn_factor: float = 1.0  # times the amplitude that follows from `factor`: R1-0528-Qwen3-8B so takes it back to 1
    truncate: bool = True  # the ramp's ends are whole numbers

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        low, high = self._pair(self.beta_fast, frequencies, theta), self._pair(self.beta_slow, frequencies, theta)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * len(frequencies) - 1)
        if low == high:
            high += 0.001
        ramp = np.clip((np.arange(len(frequencies)) - low) / (high - low), 0.0, 1.0)
        return frequencies / self.factor * ramp + frequencies * (1 - ramp)

    @property
    def amplitude(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self.attn_factor * self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)
        return self.attn_factor * self._magnitude(1.0)

    @property
    def softmax_factor(self) -> float:
        """What DeepSeek multiplies the softmax scale by."""
        return self._magnitude(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    def _pair(self, turns: float, frequencies: Frequencies, theta: float) -> float:
        """The (fractional) pair that turns so often in the original context."""
        return len(frequencies) * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / math.log(theta)

    def _magnitude(self, scale: float) -> float:
        return 0.1 * scale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


Scaling = Llama3Scaling | LinearScaling | DynamicScaling | LongRopeScaling | YarnScaling
