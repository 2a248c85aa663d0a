"""Rotary position tables: cos and sin of every position and frequency, with the published scalings. Pure NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's frequency scaling: long waves are stretched by `factor`, short ones kept, between them a ramp."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def apply(self, frequencies: NDArray[np.float64], theta: float) -> NDArray[np.float64]:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)  # in the original context
        ramp = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = np.clip(ramp, 0.0, 1.0)
        return keep * frequencies + (1 - keep) * frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023): all positions divided by `factor`."""

    factor: float

    def apply(self, frequencies: NDArray[np.float64], theta: float) -> NDArray[np.float64]:
        return frequencies / self.factor


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

    def apply(self, frequencies: NDArray[np.float64], theta: float) -> NDArray[np.float64]:
        low, high = self._pair(self.beta_fast, frequencies, theta), self._pair(self.beta_slow, frequencies, theta)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * len(frequencies) - 1)
        ramp = np.clip((np.arange(len(frequencies)) - low) / max(high - low, 1e-3), 0.0, 1.0)
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

    def _pair(self, turns: float, frequencies: NDArray[np.float64], theta: float) -> float:
        """The (fractional) pair that turns so often in the original context."""
        return len(frequencies) * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / math.log(theta)

    def _magnitude(self, scale: float) -> float:
        return 0.1 * scale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


Scaling = Llama3Scaling | LinearScaling | YarnScaling


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding of `dim` numbers a head: base frequency `theta` and an optional scaling."""

    dim: int
    theta: float
    scaling: Scaling | None = None

    def tables(self, max_length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """cos and sin [max_length, dim/2]; frequencies theta^(-2i/dim) (Su et al. 2021)."""
        frequencies = self.theta ** -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        if self.scaling:
            frequencies = self.scaling.apply(frequencies, self.theta)
        angles = np.arange(max_length, dtype=np.float64)[:, None] * frequencies
        amplitude = self.scaling.amplitude if isinstance(self.scaling, YarnScaling) else 1.0
        return (amplitude * np.cos(angles)).astype(np.float32), (amplitude * np.sin(angles)).astype(np.float32)


_SCALINGS: dict[str, type[Scaling]] = {"llama3": Llama3Scaling, "linear": LinearScaling, "yarn": YarnScaling}


def read_rope(config: Mapping[str, Any], dim: int) -> Rope:
    """The rotary embedding that config.json describes, under its older (`rope_scaling`) or newer (`rope_parameters`) keys.

    Raises:
        BuildError: a scaling type or key that is not understood.
    """
    raw = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = float(raw.pop("rope_theta", config.get("rope_theta", 10_000.0)))
    kind = raw.pop("rope_type", raw.pop("type", "default"))
    raw.pop("type", None)
    if kind in (None, "default"):
        scaling = None
    elif kind in _SCALINGS:
        fields = _SCALINGS[kind].__dataclass_fields__
        needed = {name for name, field in fields.items() if field.default is MISSING}
        if not needed <= set(raw) <= set(fields):
            raise BuildError(
                f"rope scaling {kind!r} has the keys {', '.join(sorted(raw)) or 'none'}; expected {', '.join(sorted(needed))}"
                + (f", and perhaps {', '.join(sorted(set(fields) - needed))}" if needed != set(fields) else ""),
                "correct rope_scaling in config.json",
            )
        scaling = _SCALINGS[kind](**raw)
    else:
        raise BuildError(f"rope scaling {kind!r} is not known; known: {', '.join(_SCALINGS)}", "add it in graph/rope.py")
    return Rope(dim=dim, theta=theta, scaling=scaling)
