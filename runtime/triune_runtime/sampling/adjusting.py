"""Biases, penalties, bans and masks on one row of logits after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Indices, Sites

Array = NDArray[np.float32]
# What each byte of a mask adds to the scores of its eight tokens: 0 where they may come, else minus infinity.
_FLOORS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, -np.inf).astype(
    np.float32
)


class Adjuster:
    """Makes scores of the logits of one step's rows. Works in its own memory, which stays in the processor's cache."""

    def __init__(self, columns: Columns, vocab_size: int) -> None:
        self._columns = columns
        self._biases, self._seen, self._bans = (
            (sites, sites.bounds(len(columns)).tolist()) if len(sites) else None
            for sites in (columns.biases, columns.seen, columns.bans)
        )
        self._masks = dict(zip(columns.masked.tolist(), columns.masks, strict=True))
        self._scores = np.empty(vocab_size, np.float32)
        self._floors = np.empty((columns.masks.shape[1] * 4 if self._masks else 0, 8), np.float32)

    def scores(self, logits: Array, row: int) -> Array:
        """The scores [vocab_size] of a row with these logits; overwritten when the next row is asked for."""
        scores, columns = self._scores, self._columns
        if (mask := self._masks.get(row)) is None:
            np.copyto(scores, logits)
        else:  # comes last by the definition, but whatever is done to minus infinity, it stays
            np.take(_FLOORS, mask.view(np.uint8), axis=0, out=self._floors, mode="clip")
            np.add(logits, self._floors.reshape(-1)[: len(logits)], out=scores)
        if self._biases is not None:
            tokens, values = _of_row(*self._biases, row)
            np.add.at(scores, tokens, values)
        if self._seen is not None:
            tokens, counts = _of_row(*self._seen, row)
            value, repetition = scores[tokens], columns.repetition[row]
            value = np.where(value > 0, value / repetition, value * repetition)
            scores[tokens] = value - (counts > 0) * (columns.presence[row] + columns.frequency[row] * counts)
        if self._bans is not None:
            tokens, _ = _of_row(*self._bans, row)
            scores[tokens] = -np.inf
        return scores


def _of_row(sites: Sites, bounds: list[int], row: int) -> tuple[Indices, NDArray[np.float32]]:
    part = slice(bounds[row], bounds[row + 1])
    return sites.tokens[part], sites.values[part]
