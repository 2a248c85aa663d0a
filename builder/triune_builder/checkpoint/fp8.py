"""DeepSeek's block FP8: a matrix of eight-bit floats and the scale of each of its blocks, as one tensor. Knows no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .tensor import FP8, Tensor

SCALE = "_scale_inv"  # what the scales' name adds to the weight's; value = code * scale all the same
_KEY = "quantization_config"
_UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "quant_method": ("fp8",),
    "fmt": ("e4m3", None),
    "activation_scheme": ("dynamic", None),  # says nothing of the weights
}
_HARMLESS = {"weight_block_size", "scale_fmt", "modules_to_not_convert"}  # the tensors themselves tell which are quantized


@dataclass(frozen=True, kw_only=True)
class Fp8Tensor(Tensor):
    """A matrix whose value is code times the scale of its block; blocks at the right and lower edges may be cut off."""

    scale: Tensor  # F32 [ceil(rows / block[0]), ceil(columns / block[1])]
    block: tuple[int, int]

    @property
    def codes(self) -> Tensor:
        """The codes alone, as eight-bit floats."""
        return Tensor(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Tensor)})

    def float32(self) -> NDArray[np.float32]:
        values = super().float32()
        rows, columns = self.block
        wide = np.repeat(self.scale.float32(), columns, axis=1)[:, : self.shape[1]]
        for number, scale in enumerate(wide):
            values[number * rows : (number + 1) * rows] *= scale
        return values

    def location(self) -> None:
        return None


def join_scales(weights: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every FP8 matrix with its scales as one tensor; the config without what it says of how weights are stored.

    Raises:
        BuildError: the checkpoint is quantized in another way, or a scale is missing, misshapen or of no FP8 matrix.
    """
    block = _block(config)
    joined = {name: tensor for name, tensor in weights.items() if not name.endswith(SCALE)}
    scales = {name.removesuffix(SCALE): tensor for name, tensor in weights.items() if name.endswith(SCALE)}
    problems = [f"{name}{SCALE} belongs to {_what(joined.get(name))}, not to an FP8 matrix"
                for name in scales if name not in joined or joined[name].dtype != FP8]  # fmt: skip
    for name, tensor in joined.items():
        if tensor.dtype != FP8:
            continue
        if block is None:
            raise BuildError(
                f"{name} is of type {FP8} and config.json has no {_KEY}", "fetch config.json of the same model again"
            )
        if (problem := _misfit(tensor, scales.get(name), block)) is not None:
            problems.append(problem)
        else:
            fields = {f.name: getattr(tensor, f.name) for f in dataclasses.fields(Tensor)}
            joined[name] = Fp8Tensor(**fields, scale=scales[name], block=block)
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BuildError(
            f"the FP8 scales are not right: {'; '.join(problems[:10])}{more}",
            "the checkpoint is incomplete or of several versions: fetch it again",
        )
    return joined, {key: value for key, value in config.items() if key != _KEY}


def _block(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None for a checkpoint that is not quantized."""
    raw = config.get(_KEY)
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise BuildError(f"{_KEY} in config.json is {raw!r}, not an object", "fetch config.json again")
    strange = [f"{key} = {raw.get(key)!r} (only {' or '.join(repr(v) for v in ok if v is not None)} is read)"
               for key, ok in _UNDERSTOOD.items() if raw.get(key) not in ok]  # fmt: skip
    if not strange:  # of another method, the other keys are its own
        strange = [f"{key} = {raw[key]!r} (not understood)" for key in sorted(raw.keys() - _UNDERSTOOD.keys() - _HARMLESS)]
        size = raw.get("weight_block_size")
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
            strange.append(f"weight_block_size = {size!r} (two numbers are expected)")
    if strange:
        raise BuildError(
            f"the checkpoint is quantized in a way that is not read: {_KEY} has {'; '.join(strange)}",
            "take the model's BF16, F16 or F32 checkpoint, or its block-FP8 one, or a GGUF file",
        )
    rows, columns = raw["weight_block_size"]
    return rows, columns


def _misfit(tensor: Tensor, scale: Tensor | None, block: tuple[int, int]) -> str | None:
    """What is wrong with the scale of an FP8 tensor."""
    if len(tensor.shape) != 2:
        return f"{tensor.name} is {list(tensor.shape)}; block scales are of matrices"
    if scale is None:
        return f"{tensor.name} is of type {FP8} and has no {tensor.name}{SCALE}"
    wanted = tuple(-(-size // step) for size, step in zip(tensor.shape, block, strict=True))
    if scale.shape != wanted or scale.dtype != "F32":
        return f"{scale.name} is {scale.dtype} {list(scale.shape)}; {list(tensor.shape)} wants F32 {list(wanted)}"
    return None


def _what(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"a tensor of type {tensor.dtype}"
