"""bitsandbytes checkpoints: four-bit codes of a table (NF4, FP4), and INT8 with a scale a row. Reads no weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError, quoted
from .grouped import FLOATS, GroupedTensor, grouped
from .packed_integers import PackedIntegers
from .tensor import Tensor

_STATES = tuple(f".quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
_STATE_BYTES = 1 << 16
_AGAIN = "the checkpoint is incomplete, or was not saved whole: fetch it again"
_SAVE = "save the model again with a bitsandbytes of at least 0.45, which knows one order only"
_HOLLOW = "fetch it again; a dry run of a model of the hub reads headers only, and the shapes of these weights are not in them"


@dataclass(frozen=True, kw_only=True)
class TableTensor(Tensor):
    """value = table[code] * maximum of the block; blocks run through all numbers of the matrix, row after row.

    Two codes a byte, the first in the upper half. Maxima may be codes themselves: table[code] * maximum of maxima + offset.
    """

    packed: Tensor  # U8
    table: Tensor  # [16]
    block: int  # numbers
    maxima: Tensor  # [numbers / block]: floats, or U8 with the three below
    nested_table: Tensor | None = None  # [256]
    nested_maxima: Tensor | None = None
    nested_block: int = 1  # maxima
    offset_of_maxima: float = 0.0

    @property
    def beside(self) -> tuple[Tensor, ...]:
        return tuple(t for t in (self.table, self.maxima, self.nested_table, self.nested_maxima) if t is not None)

    def float32(self) -> NDArray[np.float32]:
        values = np.empty(self.size, np.float32)
        table, maxima, at = self.table.float32().reshape(-1), self._maxima(), 0
        for _, stored in dataclasses.replace(self.packed, shape=(self.packed.size,))._bands():
            held = stored.reshape(-1)
            codes = np.stack([held >> np.uint8(4), held & np.uint8(15)], axis=1).reshape(-1)[: self.size - at]
            end = at + len(codes)
            np.multiply(np.take(table, codes), maxima[np.arange(at, end) // self.block], out=values[at:end])
            at = end
        return values.reshape(self.shape)

    def blocks(self) -> None:
        return None

    def location(self) -> None:
        return None

    def _maxima(self) -> NDArray[np.float32]:
        if self.nested_table is None or self.nested_maxima is None:
            return self.maxima.float32().reshape(-1)
        codes, outer = self.maxima.integers().reshape(-1), self.nested_maxima.float32().reshape(-1)
        found = self.nested_table.float32().reshape(-1)[codes] * outer[np.arange(len(codes)) // self.nested_block]
        maxima: NDArray[np.float32] = (found + np.float32(self.offset_of_maxima)).astype(np.float32)
        return maxima


def join_bitsandbytes(weights: Mapping[str, Tensor], raw: Mapping[str, Any]) -> tuple[dict[str, Tensor], None]:
    """Every packed matrix with what it is made of as one tensor.

    Raises:
        BuildError: parts are missing or misshapen, or a matrix is described in words that are not understood.
    """
    joined = {name: t for name, t in weights.items() if not name.endswith((".weight_format", ".SCB"))}
    for name, tensor in weights.items():
        state = next((weights[name + ending] for ending in _STATES if name + ending in weights), None)
        if state is not None:
            own = {part: joined.pop(f"{name}.{part}", None)
                   for part in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")}  # fmt: skip
            joined.pop(state.name)
            joined[name] = _four_bits(tensor, state, own)
        elif tensor.dtype == "I8" and name.endswith(".weight"):
            scale = weights.get(f"{name.removesuffix('.weight')}.SCB")
            if scale is None or len(tensor.shape) != 2:
                raise BuildError(f"{name} is I8 {list(tensor.shape)} and has no SCB, the maxima of its rows, beside it", _AGAIN)
            order = weights.get(f"{name}_format")
            if order is not None and order.integers().any():
                raise BuildError(f"{order.name} says that {name} lies in another order than row after row", _SAVE)
            joined[name] = _eight_bits(tensor, scale)
    return joined, None


def _eight_bits(tensor: Tensor, scale: Tensor) -> GroupedTensor:
    rows, columns = tensor.shape
    codes = PackedIntegers(tensor=tensor, rows=rows, columns=columns, bits=8, axis=1, signed=True)
    return grouped(tensor.name, codes, scale, 0, factor=1 / 127)


def _four_bits(tensor: Tensor, state: Tensor, own: Mapping[str, Tensor | None]) -> TableTensor:
    said = _read_state(state)
    shape: Any = said.get("shape")
    block: Any = said.get("blocksize")
    if not _is_shape(shape) or not _is_size(block):
        raise BuildError(f"{state.name} says shape = {quoted(shape)} and blocksize = {quoted(block)}", _AGAIN)
    size, maxima, table = shape[0] * shape[1], own["absmax"], own["quant_map"]
    _expect(tensor, tensor.name, ("U8",), -(-size // 2))
    count = -(-size // block)
    nested = maxima is not None and maxima.dtype == "U8"
    maxima = _expect(maxima, f"{tensor.name}.absmax", ("U8", *FLOATS), count)
    table = _expect(table, f"{tensor.name}.quant_map", FLOATS, 16)
    more: dict[str, Any] = {}
    if nested:
        outer, offset = said.get("nested_blocksize"), said.get("nested_offset")
        if not _is_size(outer) or not isinstance(offset, int | float) or not abs(offset) < 1e30:
            raise BuildError(
                f"{state.name} says nested_blocksize = {quoted(outer)} and nested_offset = {quoted(offset)}", _AGAIN
            )
        more = {
            "nested_table": _expect(own["nested_quant_map"], f"{tensor.name}.nested_quant_map", FLOATS, 256),
            "nested_maxima": _expect(own["nested_absmax"], f"{tensor.name}.nested_absmax", FLOATS, -(-count // outer)),
            "nested_block": outer, "offset_of_maxima": float(offset),
        }  # fmt: skip
    return TableTensor(
        name=tensor.name, shape=(shape[0], shape[1]), dtype=state.name[-3:].upper(), path=tensor.path, offset=tensor.offset,
        nbytes=tensor.nbytes, packed=tensor, table=table, block=block, maxima=maxima, **more,
    )  # fmt: skip


def _read_state(state: Tensor) -> dict[str, Any]:
    """The JSON object that lies there as bytes."""
    try:
        if state.dtype != "U8" or state.size > _STATE_BYTES:
            raise ValueError(f"it is {state.dtype} {list(state.shape)}")
        said = json.loads(state.integers().astype(np.uint8).tobytes())
        if not isinstance(said, dict):
            raise ValueError(f"it holds {quoted(said)}")
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{state.name} is no readable object of JSON: {error}", _HOLLOW) from error
    return said


def _expect(tensor: Tensor | None, name: str, types: tuple[str, ...], size: int) -> Tensor:
    if tensor is None or tensor.dtype not in types or tensor.size != size:
        found = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        raise BuildError(f"{name} is {found}; {size:,} numbers of type {' or '.join(types)} were expected", _AGAIN)
    return tensor


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))
