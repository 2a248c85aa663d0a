"""Logits -> tokens on the host. A row's choice depends on that row, its columns and nothing else of the step.

A plain row, which wants the best token and no more, takes the one that the engine found, if it finds any. An engine may choose
another of equal logits than is chosen here: which it is must not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from ..errors import TriuneError
from ..request import Request, TokenLogprob
from ..runner import Best, Rows
from ..text.reasoning import ThinkingLimit
from .adjusting import Adjuster
from .chance import uniform_numbers
from .columns import Columns, Indices
from .drawing import Odds, Scores, draw
from .rows import RowColumns, SampleRow

Array = NDArray[np.float32]


class SamplingError(TriuneError):
    """Some sequences have no token to choose: their logits are not numbers, or all are banned. `keys` names these."""

    def __init__(self, keys: frozenset[int]) -> None:
        super().__init__(f"no token can be chosen for {len(keys)} sequences: their logits are not numbers, or all are banned")
        self.keys = keys


@dataclass(frozen=True, slots=True)
class Choice:
    """A step's tokens."""

    tokens: Indices  # [rows]
    usable: NDArray[np.bool_]  # [rows]; False: the row has no token to choose, what `tokens` has there means nothing
    logprobs: dict[int, TokenLogprob]  # of the usable rows that want them: the model's own, of the logits as they are


def choose(logits: Array, columns: Columns, *, best: Best | None = None, at: Sequence[int] | None = None) -> Choice:
    """The next token of each row.

    Args:
        logits: [rows, vocab_size], 32-bit; with `best`, those of plain rows are not read.
        best: what the engine found in each row of `logits`.
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
        unread = columns.plain
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


class Sampler:
    """Chooses the next token of every sequence in a batch."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rows: dict[int, SampleRow] = {}
        self._together = RowColumns((), vocab_size)  # the rows of the last step
        self._alone: dict[int, RowColumns] = {}  # of rows that were sampled one by one

    def add(self, request: Request, stop_token_ids: frozenset[int], limit: ThinkingLimit | None = None) -> None:
        """Expect rows of `request`; its stop tokens are masked until `min_tokens`, and what `limit` forces is chosen."""
        self._rows[request.key] = SampleRow(
            request.params,
            request.prompt,
            stop_token_ids=[t for t in stop_token_ids if t < self._vocab_size],
            limit=limit,
            constraint=request.constraint,
        )

    def remove(self, key: int) -> None:
        """Forget a request."""
        del self._rows[key]
        self._alone.pop(key, None)

    def reads_logits(self, key: int, drafts: int = 0) -> bool:
        """Whether `sample` may need more of the next 1 + `drafts` rows of a request than their best tokens."""
        row = self._rows[key]
        return not row.plain or (drafts > 0 and row.constraint is not None)  # which may begin behind an accepted draft

    def columns(self, keys: Sequence[int], ahead: Indices | None = None) -> Columns:
        """What the next tokens of the rows of `keys` are chosen by: see `RowColumns.now`."""
        if len(keys) == 1:
            if (alone := self._alone.get(keys[0])) is None:
                alone = self._alone[keys[0]] = RowColumns((self._rows[keys[0]],), self._vocab_size)
            return alone.now(ahead)
        rows = tuple(map(self._rows.__getitem__, keys))
        if rows != self._together.rows:
            self._together = RowColumns(rows, self._vocab_size)
        return self._together.now(ahead)

    def sample(self, keys: Sequence[int], made: Rows, at: Sequence[int] | None = None) -> list[TokenLogprob]:
        """One token for each of `keys`. With best tokens in `made`, no logits of a plain row are read.

        Args:
            at: the row of each key in `made`; by default they are one behind the other.

        Log probabilities are the model's own: of the logits before bias, penalties and temperature.

        Raises:
            SamplingError: a row has no token to choose; nothing is recorded for any row.
        """
        choice = choose(made.logits, self.columns(keys), best=made.best, at=at)
        if not choice.usable.all():
            raise SamplingError(frozenset(key for key, can in zip(keys, choice.usable, strict=True) if not can))
        tokens = choice.tokens.tolist()
        for key, token in zip(keys, tokens, strict=True):
            self._rows[key].push(token)
        return [choice.logprobs.get(i) or TokenLogprob(token, 0.0) for i, token in enumerate(tokens)]

    def guess(self, key: int, logits: Array, ahead: int = 0) -> int:
        """The token that `logits` [vocab_size], someone else's guess, would give `ahead` tokens after the next.

        A sampled request draws with the number it will draw with there, so guesses that are nearly right give the same token.
        """
        return int(choose(logits[None], self.columns((key,), np.array([ahead]))).tokens[0])
