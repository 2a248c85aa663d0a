"""What the references of several architectures share: weights by scope, texts, products, norms, rotation. Plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError

Array = NDArray[np.float32]
Observe = Callable[[str, NDArray[Any]], None]


class Tensor(Protocol):
    """A weight that is read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def float32(self) -> Array: ...


@dataclass(frozen=True)
class Scope:
    """The tensors under a dotted prefix."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""
    observe: Observe = lambda name, x: None  # told of every linear weight and its input

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


def rotate(x: Array, angles: NDArray[np.float64]) -> Array:
    """Turn the pairs (x[i], x[i + dim/2]) by `angles` [..., dim/2]."""
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
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
