"""Logits -> tokens. Vectorized over the batch; a row's choice depends on that row, its request and its position alone.

A plain row, which wants the best token and no more, takes the one that the engine found, if it finds any. An engine may choose
another of equal logits than is chosen here: which it is must not depend on what else is in the batch.

Order, as in transformers and vLLM: logit bias, bad words and min_tokens, penalties, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..constraints import Constraint
from ..errors import TriuneError
from ..request import Request, SamplingParams, TokenLogprob
from ..runner import Rows
from ..text.reasoning import ThinkingLimit

Array = NDArray[np.float32]
CANDIDATES = 1024  # best tokens looked at first; the whole vocabulary only where they hold too little


class SamplingError(TriuneError):
    """Some sequences have no token to choose: their logits are not numbers, or all are banned. `keys` names these."""

    def __init__(self, keys: frozenset[int]) -> None:
        super().__init__(f"no token can be chosen for {len(keys)} sequences: their logits are not numbers, or all are banned")
        self.keys = keys


@dataclass(slots=True)
class _Row:
    """One request's part in sampling."""

    params: SamplingParams
    prompt: NDArray[np.int64]  # distinct prompt tokens
    stop_token_ids: NDArray[np.int64]
    biased: NDArray[np.int64]  # token ids
    biases: Array  # of these
    banned: NDArray[np.int64]  # bad words of one token
    banned_after: dict[int, list[tuple[int, ...]]]  # longer ones, by their last token but one
    answer: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)  # of the answer's tokens
    limit: ThinkingLimit | None = None
    constraint: Constraint | None = None

    @property
    def adjusts(self) -> bool:
        """Whether the logits are to be changed before choosing."""
        p = self.params
        penalized = p.repetition_penalty != 1 or p.presence_penalty or p.frequency_penalty
        return bool(penalized or p.logit_bias or p.bad_words or len(self.answer) < p.min_tokens) or self.constrained

    @property
    def plain(self) -> bool:
        """Whether the next token is the best one of the logits as they are, and nothing else of them is asked for."""
        return self.params.temperature == 0 and self.params.logprobs is None and not self.adjusts

    @property
    def constrained(self) -> bool:
        """Whether the next token must fit a constraint."""
        return self.constraint is not None and self.constraint.active

    @property
    def forced(self) -> int | None:
        """The token that comes next whatever the logits are, if one must."""
        return None if self.limit is None else self.limit.forced()


class Sampler:
    """Chooses the next token of every sequence in a batch."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rows: dict[int, _Row] = {}

    def add(
        self,
        request: Request,
        stop_token_ids: frozenset[int],
        limit: ThinkingLimit | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """Expect rows of `request`; its stop tokens are masked until `min_tokens`, and what `limit` forces is chosen."""
        prompt = (
            np.unique(np.asarray(request.prompt, np.int64)) if request.params.repetition_penalty != 1 else np.empty(0, np.int64)
        )
        params = request.params
        banned_after: dict[int, list[tuple[int, ...]]] = {}
        for word in params.bad_words:
            if len(word) > 1:
                banned_after.setdefault(word[-2], []).append(word)
        self._rows[request.key] = _Row(
            params=params,
            prompt=prompt,
            stop_token_ids=np.array(sorted(t for t in stop_token_ids if t < self._vocab_size), np.int64),
            biased=np.array([token for token, _ in params.logit_bias], np.int64),
            biases=np.array([bias for _, bias in params.logit_bias], np.float32),
            banned=np.array([word[0] for word in params.bad_words if len(word) == 1], np.int64),
            banned_after=banned_after,
            limit=limit,
            constraint=constraint,
        )

    def remove(self, key: int) -> None:
        """Forget a request, if it is known."""
        self._rows.pop(key, None)

    def complete(self, key: int) -> bool:
        """Whether a request's constraint allows no further token."""
        constraint = self._rows[key].constraint
        return constraint is not None and constraint.finished

    def error(self, key: int) -> str:
        """Why a request's constraint allows no token, if it does not."""
        constraint = self._rows[key].constraint
        return constraint.error if constraint is not None else ""

    def overlaps(self, key: int) -> bool:
        """Whether nothing of how a request's token is chosen depends on what the host learns of the one before."""
        row = self._rows[key]
        return row.plain and row.constraint is None and row.limit is None

    def reads_logits(self, key: int, drafts: int = 0) -> bool:
        """Whether `sample` may need more of the next 1 + `drafts` rows of a request than their best tokens."""
        row = self._rows[key]
        return not row.plain or (drafts > 0 and row.constraint is not None)  # which may begin behind an accepted draft

    def sample(self, keys: Sequence[int], made: Rows, at: Sequence[int] | None = None) -> list[TokenLogprob]:
        """One token for each of `keys`. With best tokens in `made`, no logits of a plain row are read.

        Args:
            at: the row of each key in `made`; by default they are one behind the other.

        Log probabilities are the model's own: of the logits before bias, penalties and temperature.

        Raises:
            SamplingError: a row has no token to choose; nothing is recorded for any row.
        """
        rows = [self._rows[key] for key in keys]
        if not keys:
            return []
        at = list(range(len(keys)) if at is None else at)
        tokens, usable = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        if made.best is not None:
            tokens[:] = made.best.tokens[at]
            usable[:] = np.isfinite(made.best.logits[at]) & (tokens >= 0) & (tokens < self._vocab_size)
        if read := [i for i, row in enumerate(rows) if made.best is None or not row.plain]:
            tokens[read], usable[read] = _choose(_pick(made.logits, [at[i] for i in read]), [rows[i] for i in read])
        if not usable.all():
            raise SamplingError(frozenset(key for key, can in zip(keys, usable, strict=True) if not can))
        chosen = []
        for i, row in enumerate(rows):
            forced = row.forced
            token = int(tokens[i]) if forced is None else forced
            chosen.append(_with_logprob(token, made.logits[at[i]], row.params.logprobs))
            row.answer.append(token)
            row.counts[token] = row.counts.get(token, 0) + 1
            if row.limit is not None:
                row.limit.push(token)
            if row.constraint is not None:
                row.constraint.push(token)
        return chosen

    def guess(self, key: int, logits: Array, ahead: int = 0) -> int:
        """The token that `logits` [vocab_size], someone else's guess, would give `ahead` tokens after the next.

        A sampled request draws with the number it will draw with there, so guesses that are nearly right give the same token.
        """
        row = self._rows[key]
        if ahead == 0 and row.forced is not None:
            return row.forced
        scores = logits
        if row.adjusts:
            scores = logits.copy()
            _adjust(scores, row)
        if row.params.temperature > 0 and np.isfinite(scores.max()):
            return int(_draw(scores[None], [row], ahead)[0])
        return int(scores.argmax())


def _pick(logits: Array, rows: list[int]) -> Array:
    """`logits[rows]`, without a copy where these follow each other: they are megabytes."""
    first, stop = rows[0], rows[0] + len(rows)
    return logits[first:stop] if rows == list(range(first, stop)) else logits[rows]


def _choose(logits: Array, rows: Sequence[_Row]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The token of each row of `logits` [len(rows), vocab_size], and whether there is one."""
    best = logits.argmax(axis=1)  # of equal logits the lowest id; of any with a NaN, that
    usable = np.isfinite(logits[np.arange(len(rows)), best])
    adjusted = [i for i, row in enumerate(rows) if row.adjusts and usable[i]]
    scores = logits
    if adjusted:
        scores = logits.copy()
        for i in adjusted:
            _adjust(scores[i], rows[i])
        best[adjusted] = scores[adjusted].argmax(axis=1)
        usable[adjusted] = np.isfinite(scores[adjusted, best[adjusted]])
    drawn = [i for i, row in enumerate(rows) if row.params.temperature > 0 and usable[i]]
    if drawn:
        best[drawn] = _draw(scores[drawn], [rows[i] for i in drawn])
    return best, usable


def _adjust(scores: Array, row: _Row) -> None:
    """Apply bias, bans and penalties to one row in place."""
    p = row.params
    np.add.at(scores, row.biased, row.biases)
    if p.repetition_penalty != 1:  # Keskar et al. 2019: over prompt and answer
        seen = np.union1d(row.prompt, np.fromiter(row.counts, np.int64, len(row.counts)))
        value = scores[seen]
        scores[seen] = np.where(value > 0, value / p.repetition_penalty, value * p.repetition_penalty)
    if row.counts and (p.presence_penalty or p.frequency_penalty):  # OpenAI's: over the answer
        ids = np.fromiter(row.counts, np.int64, len(row.counts))
        counts = np.fromiter(row.counts.values(), np.float32, len(row.counts))
        scores[ids] -= np.float32(p.presence_penalty) + np.float32(p.frequency_penalty) * counts
    scores[row.banned] = -np.inf
    for word in row.banned_after.get(row.answer[-1], ()) if row.answer else ():
        if tuple(row.answer[1 - len(word) :]) == word[:-1]:
            scores[word[-1]] = -np.inf
    if len(row.answer) < p.min_tokens:
        scores[row.stop_token_ids] = -np.inf
    if row.constraint is not None and row.constraint.active:
        row.constraint.mask(scores)


def _draw(scores: Array, rows: Sequence[_Row], ahead: int = 0) -> NDArray[np.int64]:
    """Draw one token a row from its temperature, top-k, top-p and min-p distribution.

    The tokens are taken in falling order of score; the one at which their summed probability passes the row's uniform number
    is drawn. The candidates nearly always hold it; a row where they might not is drawn from its whole vocabulary.
    """
    params = [row.params for row in rows]
    scaled = scores / np.array([[max(p.temperature, 1e-6)] for p in params], np.float32)
    scaled -= scaled.max(axis=1, keepdims=True)
    whole = np.exp(scaled).sum(axis=1, dtype=np.float64)
    uniform = np.array([uniform_number(row.params.seed, len(row.answer) + ahead) for row in rows])
    vocabulary = scores.shape[1]
    width = min(CANDIDATES, vocabulary)
    least = np.partition(scaled, vocabulary - width, axis=1)[:, vocabulary - width]  # score of the last candidate
    drawn = np.empty(len(rows), np.int64)
    for i, p in enumerate(params):
        masked = least[i] == -np.inf  # fewer tokens than candidates may come at all: those that may are all there are
        candidates = np.flatnonzero(scaled[i] > -np.inf if masked else scaled[i] >= least[i])
        token = _draw_one(scaled[i], candidates, p, whole[i], uniform[i], complete=masked)
        drawn[i] = _draw_one(scaled[i], np.arange(vocabulary), p, whole[i], uniform[i]) if token is None else token
    return drawn


def _draw_one(
    scaled: Array,
    candidates: NDArray[np.int64],
    params: SamplingParams,
    whole: float,
    uniform: float,
    *,
    complete: bool = False,
) -> int | None:
    """Draw from `candidates` (ascending ids, the best of the vocabulary), or None if they may not hold the drawn token."""
    ranked = candidates[np.argsort(-scaled[candidates], kind="stable")]
    complete = complete or len(ranked) == len(scaled)
    if params.top_k > len(ranked) and not complete:
        return None  # the weights of the k best add up to something that only they tell
    if params.top_k:
        ranked, complete = ranked[: params.top_k], True
    weights = np.exp(scaled[ranked], dtype=np.float64)
    total = float(weights.sum()) if complete else whole
    summed = np.cumsum(weights)
    kept = len(ranked)
    if params.top_p < 1:
        kept = int(np.searchsorted(summed, params.top_p * total)) + 1  # the first token that passes top_p is kept
        if kept > len(ranked) and not complete:
            return None
        kept = min(kept, len(ranked))
        complete = True
    if params.min_p > 0:
        likely = int(np.searchsorted(-weights, -params.min_p * weights[0], side="right"))
        if likely == len(ranked) and not complete:
            return None  # there may be more that are likely enough
        kept, complete = min(kept, likely), True
    if not complete:
        at = int(np.searchsorted(summed, uniform * whole, side="right"))
        return int(ranked[at]) if at < len(ranked) else None
    at = int(np.searchsorted(summed[:kept], uniform * summed[kept - 1], side="right"))
    return int(ranked[min(at, kept - 1)])


def uniform_number(seed: int, position: int) -> float:
    """A number in [0, 1) that is a pure function of (seed, position): SplitMix64 (Steele, Lea and Flood 2014)."""
    mask = 0xFFFFFFFFFFFFFFFF
    z = (_mix(seed & mask) + (position + 1) * 0x9E3779B97F4A7C15) & mask
    return (_mix(z) >> 11) * 2.0**-53


def _mix(z: int) -> int:
    mask = 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def _with_logprob(token: int, logits: Array, wanted: int | None) -> TokenLogprob:
    """The token with its log probability, and those of the `wanted` best."""
    if wanted is None:
        return TokenLogprob(token, 0.0)
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs = shifted - np.log(np.exp(shifted).sum())
    best: tuple[tuple[int, float], ...] = ()
    if wanted:
        at = max(len(logits) - wanted, 0)
        ids = np.flatnonzero(logits >= np.partition(logits, at)[at])
        ids = ids[np.argsort(-logits[ids], kind="stable")][:wanted]
        best = tuple((int(t), float(logprobs[t])) for t in ids)
    return TokenLogprob(token, float(logprobs[token]), best)
