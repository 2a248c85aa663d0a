"""Draws one row's token from its temperature, top-k, top-p and min-p distribution.

The definition: tokens are ranked by falling score, equal ones by id; the one at which their summed weight passes the row's
uniform number, times the weight of all, is drawn. All weights are whole numbers: see `weights`. Ranking a vocabulary and its
exact sum are dear, so the best tokens are looked at first, and the sum of all weights only known to lie between two bounds. A
token is taken where every sum within the bounds draws it; otherwise the bounds are narrowed, then more tokens ranked, in the
end all. So the choice is always that of the definition, whatever the order in which a cheap sum was added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, exp, isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Indices
from .weights import BEST, weigh

Array = NDArray[np.float32]
GROUP = 64  # tokens of which only the best is looked at first
FEW = 128  # best tokens that nearly always hold the drawn one
SMALL = 4096  # a vocabulary up to this is ranked at once
_BLOCK = 32_768  # scores whose exponentials stay in the processor's cache until they are summed
# By how much the sum of float32 exponentials can differ from that of the weights, of itself: 2.6 units in the last place of
# each exponential (NumPy's bound), 27 additions in a row of a pairwise sum, of 6e-8 each, and 4e-7 of each weight are less
# than 3e-6.
_INEXACT = 1e-5
_LOWEST = np.finfo(np.float32).min
_COLDEST = np.float32(1e-6)


class Odds(NamedTuple):
    """What shapes one row's distribution: see `Columns`; and the uniform number that draws from it."""

    temperature: np.float32
    top_k: int
    top_p: float
    min_p: float
    uniform: float

    @classmethod
    def of(cls, columns: Columns, row: int, uniform: float) -> Odds:
        temperature = max(columns.temperature[row], _COLDEST)
        return cls(temperature, int(columns.top_k[row]), float(columns.top_p[row]), float(columns.min_p[row]), uniform)


class Scores:
    """A row's scores [vocab_size] as lines of groups: token line * groups + g is in group g; a few of the last are in none."""

    def __init__(self, scores: Array) -> None:
        self.all = scores
        groups = len(scores) // GROUP
        self._lines = scores[: GROUP * groups].reshape(GROUP, groups)
        self._rest = scores[GROUP * groups :]
        self._best = np.maximum.reduce(self._lines, axis=0, initial=-np.inf)  # of each group
        self.top = np.maximum(self._best.max(initial=-np.inf), self._rest.max(initial=-np.inf))  # NaN where there is any
        self.groups = groups

    def best(self, count: int) -> tuple[Indices, np.float32]:
        """Tokens in order of id, among them all with at least a certain score, and that score: at least `count` have it.

        Minus infinity: all tokens that have more are among them.
        """
        least = np.partition(self._best, self.groups - count)[self.groups - count] if count <= self.groups else -np.inf
        floor = np.float32(least)
        groups = np.flatnonzero(self._best >= max(floor, _LOWEST))
        if len(groups) > self.groups // 4:
            return np.flatnonzero(self.all >= max(floor, _LOWEST)), floor
        lines, at = np.nonzero(self._lines[:, groups] >= max(floor, _LOWEST))
        rest = np.flatnonzero(self._rest >= max(floor, _LOWEST)) + GROUP * self.groups
        return np.concatenate([lines * self.groups + groups[at], rest]), floor


def draw(scores: Scores, odds: Odds) -> int:
    """The token that `odds` draw. `scores.top` is a finite number."""
    top = scores.top / odds.temperature + np.float32(0)  # of 0 and -0 the one that leaves no -0 below itself
    if not isfinite(top):  # so cold that float32 ends: nothing but the best has any weight
        return int(scores.all.argmax())
    if len(scores.all) > SMALL:
        most = scores.groups * 7 // 8
        for count in (max(FEW, odds.top_k + 1), most):
            if count <= most and (token := _draw_of_best(scores, top, odds, count)) is not None:
                return token
    token = _draw_of_best(scores, top, odds, scores.groups + 1)
    assert token is not None, "the whole vocabulary holds the drawn token"
    return token


def _draw_of_best(scores: Scores, top: np.float32, odds: Odds, count: int) -> int | None:
    """The token if it is certain to be among the `count` best; with more than the groups, it is."""
    ids, floor = scores.best(count)
    ids, below = _ranked(ids, top - scores.all[ids] / odds.temperature)
    complete = floor == -np.inf
    least = top - floor / odds.temperature
    if not complete:  # others may have the last score too, of which the lowest ids come first
        ids = ids[: below.searchsorted(least)]
    if odds.top_k and (odds.top_k <= len(ids) or complete):
        ids, complete = ids[: odds.top_k], True
    elif odds.top_k:
        return None
    if not len(ids):
        return None
    weights = weigh(below[: len(ids)])
    summed = np.cumsum(weights)
    total = int(summed[-1])
    if complete:
        return int(ids[_place(weights, summed, total, total, odds, complete=True)])
    for low, high in _bounds(scores.all, top, odds.temperature, total, (len(scores.all) - len(ids), least)):
        place = _place(weights, summed, low, high, odds, complete=False)
        if place is not None:
            return int(ids[place])
    return None


def _ranked(ids: Indices, below: Array) -> tuple[Indices, Array]:
    """Tokens by how much their scaled score is `below` the best [tokens], equal ones by id; and that, in this order."""
    pairs = np.empty((len(ids), 2), "<u4")  # as numbers of 64 bits, the second leads; of floats >= 0, bits have their order
    pairs[:, 0], pairs[:, 1] = ids, below.view(np.uint32)
    pairs.view("<u8").ravel().sort()
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.uint32).view(np.float32)


def _bounds(
    scores: Array, top: np.float32, temperature: np.float32, summed: int, others: tuple[int, np.float32]
) -> Iterator[tuple[int, int]]:
    """Ever tighter bounds of the sum of all weights.

    Args:
        summed: of the weights of the best tokens.
        others: how many there are, and how much the scaled score of each is at least below the best.
    """
    count, least = others
    yield summed, summed + count * (int(BEST * exp(-least) * (1 + _INEXACT)) + 1)
    total, block = 0.0, np.empty(min(_BLOCK, len(scores)), np.float32)
    for first in range(0, len(scores), _BLOCK):
        part = scores[first : first + _BLOCK]
        weights = np.divide(part, temperature, out=block[: len(part)])
        np.subtract(weights, top, out=weights)
        np.exp(weights, out=weights)
        total += float(np.add.reduce(weights))
    yield int(total * BEST * (1 - _INEXACT)), int(total * BEST * (1 + _INEXACT))


def _place(weights: Indices, summed: Indices, low: int, high: int, odds: Odds, *, complete: bool) -> int | None:
    """Where in the ranking the drawn token is, or None if some sum of all weights within [low, high] draws another.

    Args:
        weights: of the best tokens, falling; with `summed`, the sums up to each.
        complete: nothing but these tokens may be drawn: `low` and `high` are their sum, and there is a place.
    """
    kept = len(weights)
    if odds.top_p < 1:
        first, last = summed.searchsorted((ceil(odds.top_p * low), ceil(odds.top_p * high)))
        if not complete and (first < last or last == kept):
            return None
        kept, complete = min(int(first) + 1, kept), True  # the first token that passes top_p is kept
    if odds.min_p > 0:
        likely = int((-weights).searchsorted(-ceil(odds.min_p * BEST), side="right"))
        if likely == len(weights) and not complete:
            return None  # there may be more that are likely enough
        kept, complete = min(kept, likely), True
    if complete:
        total = int(summed[kept - 1])
        return int(summed.searchsorted(min(int(odds.uniform * total), total - 1), side="right"))
    first, last = summed.searchsorted((int(odds.uniform * low), int(odds.uniform * high)), side="right")
    return int(first) if first == last < kept else None
