"""Rotary position tables: cos and sin of every position and frequency, with the published scalings. Pure NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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

    def apply(self, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)  # in the original context
        ramp = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = np.clip(ramp, 0.0, 1.0)
        return keep * frequencies + (1 - keep) * frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023): all positions divided by `factor`."""

    factor: float

    def apply(self, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding of `dim` numbers a head: base frequency `theta` and an optional scaling."""

    dim: int
    theta: float
    scaling: Llama3Scaling | LinearScaling | None = None

    def tables(self, max_length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """cos and sin [max_length, dim/2]; frequencies theta^(-2i/dim) (Su et al. 2021)."""
        frequencies = self.theta ** -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        if self.scaling:
            frequencies = self.scaling.apply(frequencies)
        angles = np.arange(max_length, dtype=np.float64)[:, None] * frequencies
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


_SCALINGS: dict[str, type[Llama3Scaling] | type[LinearScaling]] = {"llama3": Llama3Scaling, "linear": LinearScaling}


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
        fields = set(_SCALINGS[kind].__dataclass_fields__)
        if set(raw) != fields:
            raise BuildError(
                f"rope scaling {kind!r} has the keys {', '.join(sorted(raw)) or 'none'}; expected {', '.join(sorted(fields))}",
                "correct rope_scaling in config.json",
            )
        scaling = _SCALINGS[kind](**raw)
    else:
        raise BuildError(f"rope scaling {kind!r} is not known; known: {', '.join(_SCALINGS)}", "add it in graph/rope.py")
    return Rope(dim=dim, theta=theta, scaling=scaling)
