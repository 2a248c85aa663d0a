"""Logits -> tokens on the host. A row's choice depends on that row, its columns and nothing else of the step.

A plain row, which wants the best token and no more, takes the one that the engine found, if it finds any. An engine may choose
another of equal logits than is chosen here: which it is must not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from ..request import TokenLogprob
from ..runner import Best
from .adjusting import Adjuster
from .chance import uniform_numbers
from .columns import Columns, Indices
from .drawing import Odds, Scores, draw

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Choice:
    """A step's tokens."""

    tokens: Indices  # [rows]
    usable: NDArray[np.bool_]  # [rows]; False: the row has no token to choose, what `tokens` has there means nothing
    logprobs: dict[int, TokenLogprob]  # of the usable rows that want them: the model's own, of the logits as they are


def choose(
    logits: Array,
    columns: Columns,
    *,
    best: Best | None = None,
    theirs: NDArray[np.bool_] | None = None,
    at: Sequence[int] | None = None,
) -> Choice:
    """The next token of each row.

    Args:
        logits: [rows, vocab_size], 32-bit; with `best`, those of plain rows are not read.
        best: what the runner chose in each row of `logits`.
        theirs: the rows [rows] that the runner has chosen for besides the plain ones.
        at: where in `logits` and `best` each row of `columns` is; by default they are one behind the other.
    """
    count = len(columns)
    places = range(count) if at is None else at
    tokens, usable, logprobs = np.zeros(count, np.int64), np.zeros(count, np.bool_), dict[int, TokenLogprob]()
    unread = np.zeros(count, np.bool_)
    if best is not None:
        found = slice(count) if at is None else np.asarray(at, np.int64)
        tokens[:] = best.tokens[found]
        usable[:] = np.isfinite(best.logits[found]) & (tokens >= 0) & (tokens < logits.shape[1])
        unread = columns.plain if theirs is None else columns.plain | theirs
    if not unread.all():
        highest = columns.greedy & ~columns.adjusted & ~unread
        if len(rows := np.flatnonzero(highest)):
            tokens[rows], usable[rows] = _highest_of_each(logits, [places[i] for i in rows.tolist()])
        if len(others := np.flatnonzero(~(highest | unread))):
            _choose_others(logits, columns, others.tolist(), places, (tokens, usable))
    np.copyto(tokens, columns.forced, where=columns.forced >= 0)
    for i in np.flatnonzero((columns.logprobs >= 0) & usable).tolist():
        logprobs[i] = _with_logprob(int(tokens[i]), logits[places[i]], int(columns.logprobs[i]))
    return Choice(tokens, usable, logprobs)


def _choose_others(
    logits: Array, columns: Columns, rows: list[int], places: Sequence[int], into: tuple[Indices, NDArray[np.bool_]]
) -> None:
    """Choose for `rows`, which are adjusted or drawn, and write it into tokens and usable [rows]."""
    tokens, usable = into
    uniform = uniform_numbers(columns.seed, columns.position).tolist()
    adjuster = Adjuster(columns, logits.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for i in rows:
            scores = logits[places[i]]
            if columns.adjusted[i]:
                tokens[i], usable[i] = _highest(scores)
                if not usable[i]:
                    continue
                scores = adjuster.scores(scores, i)
            tokens[i], usable[i] = _highest(scores) if columns.greedy[i] else _drawn(scores, columns, i, uniform[i])


def _highest(scores: Array) -> tuple[int, bool]:
    token = int(scores.argmax())  # of equal ones the lowest id; of any with a NaN, that
    return token, isfinite(scores[token])


def _highest_of_each(logits: Array, places: list[int]) -> tuple[Indices, NDArray[np.bool_]]:
    """`_highest` of several rows, without a copy of theirs: they are megabytes."""
    first, stop = places[0], places[0] + len(places)
    neighbours = places == list(range(first, stop))
    tokens = logits[first:stop].argmax(axis=1) if neighbours else np.array([logits[place].argmax() for place in places])
    return tokens, np.isfinite(logits[places, tokens])


def _drawn(scores: Array, columns: Columns, row: int, uniform: float) -> tuple[int, bool]:
    grouped = Scores(scores)
    if not isfinite(grouped.top):
        return int(scores.argmax()), False
    return draw(grouped, Odds.of(columns, row, uniform)), True


def score(logits: Array, tokens: Sequence[int], wanted: int) -> list[TokenLogprob]:
    """The log probability of the token after each row, its rank, and those of the `wanted` best.

    Args:
        logits: [rows, vocab_size] of which row i is after the token before `tokens[i]`.

    Raises:
        FloatingPointError: a row's logits are no numbers.
    """
    found = []
    for token, row in zip(tokens, logits, strict=True):
        if not isfinite(row.max()):
            raise FloatingPointError("its prompt's logits are not numbers")
        found.append(replace(_with_logprob(token, row, wanted), rank=1 + int((row > row[token]).sum())))
    return found


def _with_logprob(token: int, logits: Array, wanted: int) -> TokenLogprob:
    """The token with its log probability, and those of the `wanted` best."""
    top = float(logits.max())
    shifted = np.subtract(logits, top, dtype=np.float64)
    normalizer = np.log(np.exp(shifted, out=shifted).sum())
    best: tuple[tuple[int, float], ...] = ()
    if wanted:
        ids, floor = Scores(logits).best(wanted)
        ids = ids if floor > -np.inf else np.arange(len(logits))
        ids = ids[np.argsort(-logits[ids], kind="stable")][:wanted]
        best = tuple((int(t), float(np.float64(logits[t]) - top - normalizer)) for t in ids)
    return TokenLogprob(token, float(np.float64(logits[token]) - top - normalizer), best)
