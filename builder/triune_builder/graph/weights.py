"""Lazy weights of a graph: a checkpoint tensor, or several stacked into one. Reads nothing until asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Blocks
from ..errors import BuildError


class Source(Protocol):
    """What the graph needs of a checkpoint's tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def float32(self) -> NDArray[np.float32]: ...

    def blocks(self) -> Blocks | None: ...


@dataclass(frozen=True)
class WeightSource:
    """A weight of the graph: one or more checkpoint tensors stacked along their first axis."""

    name: str
    parts: tuple[Source, ...]
    part_names: tuple[str, ...] = ()  # in the checkpoint; empty for a weight that a pass made

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    def float32(self) -> NDArray[np.float32]:
        """The numbers; reads the parts and nothing else."""
        return self.parts[0].float32() if len(self.parts) == 1 else np.concatenate([p.float32() for p in self.parts])

    def blocks(self) -> list[Blocks] | None:
        """The checkpoint's own quantized blocks, part by part; None unless every part has them."""
        blocks = [p.blocks() for p in self.parts]
        return None if any(b is None for b in blocks) else [b for b in blocks if b is not None]


def fuse(name: str, weights: Mapping[str, Source], part_names: Sequence[str]) -> WeightSource:
    """Stack the named weights under one name.

    Raises:
        BuildError: their shapes differ behind the first axis.
    """
    parts = [weights[part] for part in part_names]
    if len({tuple(p.shape[1:]) for p in parts}) != 1:
        shapes = ", ".join(str(tuple(p.shape)) for p in parts)
        raise BuildError(f"the parts of {name} have shapes {shapes}", "all must agree behind the first axis")
    return WeightSource(name, tuple(parts), tuple(part_names))
