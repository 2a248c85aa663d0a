"""Weights that a checkpoint holds in quantized blocks, in memory."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from triune_builder.checkpoint import Blocks

from .tiny_llama import FakeTensor


@dataclasses.dataclass(frozen=True)
class BlockTensor(FakeTensor):
    """A matrix that the checkpoint holds in four-bit blocks of 32 with a minimum each, as Q4_1."""

    held: Blocks | None = None

    def blocks(self) -> Blocks | None:  # type: ignore[override]  # the plain fake has none
        return self.held


def in_blocks(weight: NDArray[np.float32]) -> BlockTensor:
    """The blocks nearest to `weight` [rows, columns]; its values are those of the blocks."""
    split = weight.reshape(len(weight), -1, 32)
    low, high = (f(split, -1).astype(np.float16).astype(np.float32) for f in (np.min, np.max))
    scale = ((high - low) / 15).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint((split - low[..., None]) / scale[..., None]), 0, 15).astype(np.uint8).reshape(weight.shape)
    held = Blocks(codes=codes, scale=scale, minimum=low, bits=4)
    values = codes.reshape(split.shape) * scale[..., None] + low[..., None]
    return BlockTensor(values.reshape(weight.shape).astype(np.float32), held=held)
