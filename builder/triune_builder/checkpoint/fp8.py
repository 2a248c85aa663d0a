"""FP8 checkpoints: a matrix of eight-bit floats and its scales, whatever they are of, as one tensor. Knows no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .fp8_config import KEY, OF_ACTIVATIONS, Grid, grid_of
from .tensor import FP8, Tensor

# What the scales' name adds to the weight's. DeepSeek's says inverse; value = code * scale all the same.
_SCALES = ("_scale_inv", "_scale")
_SCALE_TYPES = ("F32", "BF16", "F16")  # all of them float32 numbers
_USUAL = (128, 128)  # rows and columns of a block, where config.json does not say


@dataclass(frozen=True, kw_only=True)
class Fp8Tensor(Tensor):
    """A matrix whose value is code times the scale of its block; blocks at the right and lower edges may be cut off.

    A scale for each row is blocks of a row, one scale for all is one block.
    """

    scale: Tensor  # [ceil(rows / block[0]), ceil(columns / block[1])]
    block: tuple[int, int]

    @property
    def codes(self) -> Tensor:
        """The codes alone, as eight-bit floats."""
        return Tensor(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Tensor)})

    def float32(self) -> NDArray[np.float32]:
        values = super().float32()
        rows, columns = self.block
        scale = self.scale.float32()
        if scale.shape[1] == 1:
            values *= np.repeat(scale, rows, axis=0)[: self.shape[0]]
            return values
        wide = np.repeat(scale, columns, axis=1)[:, : self.shape[1]]
        for number, band in enumerate(wide):
            values[number * rows : (number + 1) * rows] *= band
        return values

    @property
    def beside(self) -> tuple[Tensor, ...]:
        return (self.scale,)

    def location(self) -> None:
        return None


def join_scales(weights: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every FP8 matrix with its scales as one tensor; the config without what it says of how weights are stored.

    Raises:
        BuildError: the checkpoint is quantized in another way, or a scale is missing, misshapen or of no FP8 matrix.
    """
    grid = grid_of(config)
    scales: dict[str, Tensor] = {}
    joined: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        owner = _owner(name)
        if owner is not None and (name.endswith(_SCALES[0]) or (grid is not None and owner in weights)):
            scales[owner] = tensor
        elif grid is None or not name.endswith(OF_ACTIVATIONS):
            joined[name] = tensor
    problems = [f"{tensor.name} belongs to {_what(joined.get(name))}, not to an FP8 matrix"
                for name, tensor in scales.items() if name not in joined or joined[name].dtype != FP8]  # fmt: skip
    for name, tensor in joined.items():
        if tensor.dtype != FP8:
            continue
        if grid is None:
            raise BuildError(
                f"{name} is of type {FP8} and config.json has no {KEY}", "fetch config.json of the same model again"
            )
        found = _joined(tensor, scales.get(name), grid)
        if isinstance(found, str):
            problems.append(found)
        else:
            joined[name] = found
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BuildError(
            f"the FP8 scales are not right: {'; '.join(problems[:10])}{more}",
            "the checkpoint is incomplete, of several versions, or not quantized as its config.json says: fetch it again, or "
            "take the model's BF16 one",
        )
    return joined, {key: value for key, value in config.items() if key != KEY}


def _owner(name: str) -> str | None:
    """The weight whose scales a tensor of that name would be."""
    ending = next((ending for ending in _SCALES if name.endswith(ending)), None)
    return None if ending is None else name.removesuffix(ending)


def _joined(tensor: Tensor, scale: Tensor | None, grid: Grid) -> Fp8Tensor | str:
    """An FP8 tensor with its scale, or what is wrong with that."""
    if len(tensor.shape) != 2 or not tensor.size:
        return f"{tensor.name} is {list(tensor.shape)}; scales are of matrices"
    if scale is None:
        return f"{tensor.name} is of type {FP8} and has no {tensor.name}{_SCALES[0] if grid.block else _SCALES[1]}"
    rows, columns = tensor.shape
    blocks = [grid.block] if grid.block else [(1, columns), (rows, columns), _USUAL]
    wanted = [(-(-rows // high), -(-columns // wide)) for high, wide in blocks]
    for block, shape in zip(blocks, wanted, strict=True):
        # One scale for all, or one for each row, may have lost the axes that have one entry.
        same = scale.shape == shape or (
            grid.block is None and shape[1] == 1 and scale.shape in (shape[:1], shape[: shape[0] > 1])
        )
        if same and scale.dtype in _SCALE_TYPES:
            fields = {f.name: getattr(tensor, f.name) for f in dataclasses.fields(Tensor)}
            return Fp8Tensor(**fields, scale=dataclasses.replace(scale, shape=shape), block=block)
    expected = " or ".join(str(list(shape)) for shape in dict.fromkeys(wanted))
    types = ", ".join(_SCALE_TYPES)
    return f"{scale.name} is {scale.dtype} {list(scale.shape)}; {list(tensor.shape)} wants {expected} of type {types}"


def _what(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"a tensor of type {tensor.dtype}"
