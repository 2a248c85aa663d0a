"""What the references of several architectures share: weights by scope, texts, products, norms, rotation. Plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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


def gated_mlp(w: Scope, x: Array, biased: Collection[str] = ()) -> Array:
    """down(silu(gate(x)) * up(x))."""
    gate = linear(w, "gate_proj", x, biased)
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and x / infinity the right 0
        gate /= 1 + np.exp(-gate)
    return linear(w, "down_proj", gate * linear(w, "up_proj", x, biased), biased)


def linear(w: Scope, name: str, x: Array, biased: Collection[str] = ()) -> Array:
    """x W^T, plus the bias where `biased` names the product."""
    w.observe(f"{w.prefix}{name}.weight", x)
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if name in biased else y


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * gain over the last axis."""
    size: Array = np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps))
    return x / size * gain


def rotate(x: Array, angles: NDArray[np.float64]) -> Array:
    """Turn the pairs (x[i], x[i + dim/2]) by `angles` [..., dim/2]."""
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
