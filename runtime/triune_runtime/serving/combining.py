"""The responses of one request -> one response, for protocols that have room for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tensors import Arrays, Tensors

PLACES = frozenset({"batch_index", "sequence_index"})


def combined(parts: Sequence[Tensors]) -> Arrays:
    """The tensors of all responses behind each other, in the order of their rows and sequences where they name them."""
    ordered = sorted(parts, key=_place)
    names = dict.fromkeys(["text_output", *(name for part in ordered for name in part)])  # clients read the first one
    found = {name: [part[name] for part in ordered if name in part] for name in names}
    return {name: stacked(arrays) for name, arrays in found.items() if arrays}


def stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays behind each other; where rows differ in length, as log probabilities of tokens do, zeros fill the shorter."""
    longest = max(array.shape[-1] for array in arrays)
    if arrays[0].ndim == 2 and any(array.shape[1] < longest for array in arrays):
        arrays = [np.pad(array, ((0, 0), (0, longest - array.shape[1]))) for array in arrays]
    return np.concatenate(arrays)


def _place(part: Tensors) -> tuple[int, int]:
    row, sequence = (int(part[name].reshape(-1)[0]) if name in part else 0 for name in ("batch_index", "sequence_index"))
    return row, sequence
