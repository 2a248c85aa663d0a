"""A matrix of small integers with a scale and a zero for each group of columns, as one tensor. Knows no tool's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .block_types import BLOCK, Codes
from .packed_integers import PackedIntegers
from .quantized_blocks import Blocks
from .tensor import Tensor

_BAND = 1 << 20  # numbers decoded at a time
FLOATS = ("F32", "F16", "BF16")  # all of them float32 numbers
INCOMPLETE = "the checkpoint is incomplete, of several versions, or not quantized as its config says: fetch it again"
_UNSET = (0, -1)  # what tools begin a list of columns' groups with, and leave where they did not order columns


@dataclass(frozen=True, kw_only=True)
class GroupedTensor(Tensor):
    """value = (code - zero) * scale, and times the column's factor where the tool left one beside.

    Its own place in the file is that of the codes.
    """

    codes: PackedIntegers
    scale: Tensor  # [rows, groups], or with `scale_transposed` [groups, rows]
    scale_transposed: bool = False
    zero: PackedIntegers | int  # [rows, groups], or one for all
    zero_shift: int = 0  # what a stored zero is less than the zero of the codes
    group: int  # columns that share a scale, where `group_of` does not tell; the last group may be short
    group_of: Tensor | None = None  # [columns]: the group of each column
    factors: Tensor | None = None  # [columns]
    factor: float = 1.0  # of every scale

    @property
    def beside(self) -> tuple[Tensor, ...]:
        zero = (self.zero.tensor,) if isinstance(self.zero, PackedIntegers) else ()
        return (self.scale, *zero, *(t for t in (self.group_of, self.factors) if t is not None))

    def float32(self) -> NDArray[np.float32]:
        values = np.empty(self.shape, np.float32)
        scales, groups = self._scales(), self._groups
        factors = None if self.factors is None else self.factors.float32().reshape(-1)
        for band in self._row_bands():
            zeros = self._zeros(band)
            wide = np.subtract(self.codes.read(band), zeros if isinstance(zeros, int) else zeros[:, groups], dtype=np.float32)
            np.multiply(wide, scales[band][:, groups], out=values[band])
            if factors is not None:
                values[band] *= factors
        return values

    @property
    def has_blocks(self) -> bool:
        whole = self.group % BLOCK == 0 or self.group == self.shape[1]
        return whole and self.shape[1] % BLOCK == 0 and self.factors is None and self._is_in_order

    def blocks(self) -> Blocks | None:
        if not self.has_blocks:
            return None
        rows, columns = self.shape
        codes: Codes = np.empty((rows, columns), np.int8) if self.codes.signed else np.empty((rows, columns), np.uint8)
        scale, minimum = (np.empty((rows, columns // BLOCK), np.float32) for _ in range(2))
        of_block, scales = self._groups[::BLOCK], self._scales()
        for band in self._row_bands():
            codes[band] = self.codes.read(band)
            scale[band] = scales[band][:, of_block]
            zeros = self._zeros(band)
            minimum[band] = -np.float32(zeros) if isinstance(zeros, int) else -zeros[:, of_block]
        minimum *= scale
        if self.codes.signed and self.codes.bits < 8:
            half = 1 << (self.codes.bits - 1)
            return Blocks(
                codes=(codes + np.int8(half)).view(np.uint8), scale=scale, minimum=minimum - half * scale, bits=self.codes.bits
            )
        return Blocks(codes=codes, scale=scale, minimum=minimum, bits=self.codes.bits)

    def location(self) -> None:
        return None

    def _row_bands(self) -> Iterator[slice]:
        rows, columns = self.shape
        step = max(BLOCK, _BAND // columns // BLOCK * BLOCK)  # whole words, however rows are packed
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def _scales(self) -> NDArray[np.float32]:
        """[rows, groups]."""
        scales = self.scale.float32().reshape(self.scale.shape)
        scales = scales.T if self.scale_transposed else scales
        if self.factor != 1:
            scales = scales * np.float32(self.factor)
        return np.broadcast_to(scales, (self.shape[0], scales.shape[1]))

    def _zeros(self, band: slice) -> NDArray[np.float32] | int:
        """[rows of the band, groups], or one for all."""
        return (
            self.zero if isinstance(self.zero, int) else self.zero.read(band).astype(np.float32) + np.float32(self.zero_shift)
        )

    @cached_property
    def _in_order(self) -> NDArray[np.intp]:
        return np.arange(self.shape[1]) // self.group

    @cached_property
    def _groups(self) -> NDArray[np.intp]:
        """For each column its group.

        Raises:
            BuildError: there is no group of that number.
        """
        if self.group_of is None:
            return self._in_order
        groups = self.group_of.integers().reshape(-1).astype(np.intp)
        if groups[0] in _UNSET and np.all(groups == groups[0]):
            return self._in_order
        count = self.scale.shape[0 if self.scale_transposed else 1]
        if groups.min() < 0 or groups.max() >= count:
            wrong = groups[(groups < 0) | (groups >= count)][0]
            raise BuildError(
                f"{self.group_of.name} has the group {wrong}; {self.scale.name} has scales of {count}",
                "fetch the weights again",
            )
        return groups

    @property
    def _is_in_order(self) -> bool:
        return self.group_of is None or np.array_equal(self._groups, self._in_order)


def grouped(name: str, codes: PackedIntegers, scale: Tensor, zero: PackedIntegers | int, **more: Any) -> GroupedTensor:
    """The tensor `name` of these parts.

    Args:
        more: what else `GroupedTensor` has; `group` is all columns, unless it is said.

    Raises:
        BuildError: a part is missing a row or a column, or of another type.
    """
    rows, columns = codes.rows, codes.columns
    group = more.setdefault("group", columns)
    wanted = (rows, -(-columns // group))
    transposed = more.get("scale_transposed", False)
    if scale.shape in ((), (1,), (1, 1)) and not transposed:  # one for the matrix
        scale, wanted = dataclasses.replace(scale, shape=(1, 1)), (1, 1)
    elif scale.shape == (rows,) and wanted[1] == 1:
        scale = dataclasses.replace(scale, shape=(rows, 1))
    expected = wanted[::-1] if transposed else wanted
    if scale.shape != expected or scale.dtype not in FLOATS:
        raise _unfit(scale, expected, " or ".join(FLOATS))
    for packed in (codes, zero):
        if isinstance(packed, PackedIntegers) and packed.tensor.shape != packed.expected():
            raise _unfit(packed.tensor, packed.expected(), packed.tensor.dtype)
    for vector, types in ((more.get("group_of"), ("I32", "I64")), (more.get("factors"), FLOATS)):
        if vector is not None and (vector.shape != (columns,) or vector.dtype not in types):
            raise _unfit(vector, (columns,), " or ".join(types))
    own = codes.tensor
    return GroupedTensor(
        name=name, shape=(rows, columns), dtype=f"INT{codes.bits}", path=own.path, offset=own.offset, nbytes=own.nbytes,
        codes=codes, scale=scale, zero=zero, **more,
    )  # fmt: skip


def group_size(columns: int, count: int, said: Any) -> int:
    """Columns that share a scale, of which a row has `count`: as config.json says, or equal shares where it says another."""
    is_said = isinstance(said, int) and not isinstance(said, bool) and 0 < said <= columns and -(-columns // said) == count
    return said if is_said else max(1, -(-columns // max(count, 1)))


def _unfit(tensor: Tensor, expected: tuple[int, ...], types: str) -> BuildError:
    return BuildError(
        f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}; {types} {list(expected)} was expected", INCOMPLETE
    )
