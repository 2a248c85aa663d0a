"""Lazy weights of a graph: a checkpoint tensor, or several stacked into one. Reads nothing until asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..checkpoint import Blocks, Tensor
from ..errors import BuildError

_BAND = 1 << 24  # bytes compared at a time


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

    @property
    def has_blocks(self) -> bool:
        """Whether the checkpoint holds some part as quantized blocks; reads none of them where that can be told without."""
        return any(p.has_blocks if isinstance(p, Tensor) else p.blocks() is not None for p in self.parts)


@dataclass(frozen=True)
class StackSource:
    """Equal weights stacked along a new first axis, one for each expert."""

    name: str
    experts: tuple[WeightSource, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.experts), *self.experts[0].shape)


class StackedTensor(ir.LazyTensor):
    """A stack that is made entry by entry: written to a file, only one entry is in memory at a time."""

    def __init__(
        self,
        make: Callable[[int], NDArray[Any]],
        dtype: ir.DataType,
        shape: Sequence[int],
        name: str,
        *,
        flat: bool = False,
    ) -> None:
        """
        Args:
            make: the entry of that number, of `shape` without its first axis.
            flat: the entries' rows lie one below the other: the tensor has one axis less.
        """
        sizes = (shape[0] * shape[1], *shape[2:]) if flat else tuple(shape)
        super().__init__(
            lambda: ir.tensor(np.stack([make(i) for i in range(shape[0])]).reshape(sizes), name=name),
            dtype,
            ir.Shape(sizes),
            name=name,
        )
        self.entry = make
        self.sizes = tuple(shape)
        self._flat = flat

    def changed(self, change: Callable[[NDArray[Any]], NDArray[Any]], dtype: ir.DataType) -> StackedTensor:
        """The same stack with other entries, of the same shape."""
        return StackedTensor(lambda i: change(self.entry(i)), dtype, self.sizes, self.name or "", flat=self._flat)

    def tofile(self, file: Any) -> None:
        for i in range(self.sizes[0]):
            file.write(ir.tensor(self.entry(i)).tobytes())


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


def same_values(one: Source, other: Source) -> bool:
    """Whether both hold the same numbers; of files of one type it compares the bytes, a band at a time.

    Raises:
        BuildError: a file cannot be read.
    """
    if tuple(one.shape) != tuple(other.shape):
        return False
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype:
        places = one.location(), other.location()
        if places[0] is not None and places[1] is not None:
            return _same_bytes(places[0], places[1])
    return np.array_equal(one.float32(), other.float32())


def _same_bytes(one: tuple[Path, int, int], other: tuple[Path, int, int]) -> bool:
    try:
        first, second = (np.memmap(path, np.uint8, "r", offset, (size,)) for path, offset, size in (one, other))
    except (OSError, ValueError) as error:
        raise BuildError(f"cannot read {one[0]}: {error}", "the file changed or went away; fetch it again") from error
    return len(first) == len(second) and all(
        np.array_equal(first[at : at + _BAND], second[at : at + _BAND]) for at in range(0, len(first), _BAND)
    )
