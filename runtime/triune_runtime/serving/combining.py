"""The responses of one request -> one response, for protocols that have room for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
PLACES = frozenset({"batch_index", "sequence_index"})
_PADDED = "output_log_probs"  # [1, tokens], and as many tokens as the longest answer has


def combined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The tensors of all responses behind each other, in the order of their rows and sequences where they name them."""
    ordered = sorted(parts, key=_place)
    names = dict.fromkeys(["text_output", *(name for part in ordered for name in part)])  # clients read the first one
    found = {name: [part[name] for part in ordered if name in part] for name in names}
    together = {name: arrays for name, arrays in found.items() if arrays}
    if _PADDED in together:
        longest = max(array.shape[1] for array in together[_PADDED])
        together[_PADDED] = [np.pad(a, ((0, 0), (0, longest - a.shape[1]))) for a in together[_PADDED]]
    return {name: np.concatenate(arrays) for name, arrays in together.items()}


def _place(part: Arrays) -> tuple[int, int]:
    row, sequence = (int(part[name].reshape(-1)[0]) if name in part else 0 for name in ("batch_index", "sequence_index"))
    return row, sequence
