"""The numbers of golden checkpoints: weights and tokens that follow from names, shapes and a seed. Reads no config.json."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def recipe_weight(name: str, shape: Sequence[int]) -> Array:
    """Random numbers, large enough that attention, rotation and routing matter to every logit."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.normal(size=tuple(shape))
    if name.endswith("correction_bias"):
        return (values * 0.2).astype(np.float32)
    if len(shape) == 1:
        return (values * 0.2 + (0 if name.endswith("bias") else 1)).astype(np.float32)
    return (values * 2.0 / max(shape[-1], 1) ** 0.5).astype(np.float32)


def recipe_weights(shapes: Mapping[str, Sequence[int]], copies: Mapping[str, str]) -> dict[str, Array]:
    """Every weight of a checkpoint.

    Args:
        copies: weight -> the other one whose numbers it has.
    """
    return {name: recipe_weight(copies.get(name, name), shape) for name, shape in shapes.items()}


def recipe_tokens(length: int, vocab_size: int) -> list[int]:
    """A text."""
    return [int(t) for t in np.random.default_rng(length).integers(0, vocab_size, length)]


def recipe_positions(length: int) -> list[int]:
    """Where the logits of a text are kept: its beginning, its end, and between."""
    return sorted({0, 3, length // 3, length // 2, length - 2, length - 1})
