"""Every request's part in sampling, and of several together the columns by which a step's tokens are chosen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..constraints import Constraint
from ..constraints.bits import words
from ..request import SamplingParams
from ..text.reasoning import ThinkingLimit
from .columns import Columns, Indices, Sites

_SEED_MASK = 0xFFFFFFFFFFFFFFFF
_Site = tuple[int, Indices, NDArray[np.float32]]  # row, tokens, values


class SampleRow:
    """One request: what it asks for, and of its answer what that needs to know. A plain one knows the answer's length alone."""

    __slots__ = (
        "_after", "_recent", "_seen", "_singles", "_stops",
        "bare", "biases", "constraint", "depends", "limit", "needs", "numbers", "params", "position", "simple",
    )  # fmt: skip

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        *,
        stop_token_ids: Iterable[int] = (),
        limit: ThinkingLimit | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """
        Args:
            stop_token_ids: tokens of the vocabulary that end the answer, which they may not before `min_tokens`.
            limit: what it forces is chosen.
            constraint: of the answer to this request alone.
        """
        self.params, self.limit, self.constraint = params, limit, constraint
        self.position = 0  # how many tokens the answer has
        self._stops = np.array(sorted(stop_token_ids) if params.min_tokens else (), np.int64)
        tokens, values = zip(*params.logit_bias, strict=True) if params.logit_bias else ((), ())
        self.biases = np.array(tokens, np.int64), np.array(values, np.float32)  # tokens, and what their logits get added
        self._singles = np.array([word[0] for word in params.bad_words if len(word) == 1], np.int64)
        self._after: dict[int, list[tuple[int, ...]]] = {}  # bad words of several tokens, by their last token but one
        for word in params.bad_words:
            if len(word) > 1:
                self._after.setdefault(word[-2], []).append(word)
        longest = max(map(len, params.bad_words), default=1) - 1
        self._recent = deque[int](maxlen=longest) if self._after else None  # the answer's last tokens
        repeats = params.repetition_penalty != 1
        counts = repeats or params.presence_penalty or params.frequency_penalty
        self._seen = _Seen(prompt if repeats else ()) if counts else None
        # Whether what may come next depends on which token came last, so that no step may begin before that is known.
        self.depends = bool(counts or self._after or limit is not None or constraint is not None)
        self.bare = not (self.depends or params.logit_bias or params.bad_words or params.min_tokens)  # nothing adjusts it, ever
        self.simple = self.bare and params.temperature == 0 and params.logprobs is None  # it is plain, and will be
        self.numbers = _numbers(params)
        self.needs = frozenset(_needs(params, limit, constraint))  # of `Runner.chooses`

    @property
    def greedy(self) -> bool:
        return self.params.temperature == 0

    @property
    def steady(self) -> bool:
        """Whether all but its position is the same from step to step."""
        return not self.depends and self.position >= self.params.min_tokens

    @property
    def constrained(self) -> bool:
        """Whether the next token must fit a constraint."""
        return self.constraint is not None and self.constraint.active

    @property
    def plain(self) -> bool:
        """Whether the next token is the best one of the logits as they are, and nothing else of them is asked for."""
        return self.greedy and self.params.logprobs is None and not self.adjusted(self.position)

    def adjusted(self, position: int) -> bool:
        """Whether the logits are to be changed before the token at `position` of the answer is chosen.

        Also where it just so happens that nothing changes: who chooses among equal logits must not depend on that.
        """
        p = self.params
        return bool(self._seen is not None or p.logit_bias or p.bad_words or position < p.min_tokens) or self.constrained

    def push(self, token_id: int) -> None:
        """Take in the answer's next token."""
        self.position += 1
        if self._seen is not None:
            self._seen.add(token_id)
        if self._recent is not None:
            self._recent.append(token_id)
        if self.limit is not None:
            self.limit.push(token_id)
        if self.constraint is not None:
            self.constraint.push(token_id)

    def seen(self) -> tuple[Indices, NDArray[np.float32]]:
        """Tokens that penalties are for, and how often each is in the answer."""
        return self._seen.counts() if self._seen is not None else (_NO_TOKENS, _NO_VALUES)

    def bans(self, position: int) -> Indices:
        """Tokens that may not come at `position` of the answer."""
        banned = [self._singles] if len(self._singles) else []
        if self._recent:
            recent = tuple(self._recent)
            words = [word for word in self._after.get(recent[-1], ()) if recent[1 - len(word) :] == word[:-1]]
            banned.append(np.array([word[-1] for word in words], np.int64))
        if position < self.params.min_tokens:
            banned.append(self._stops)
        return banned[0] if len(banned) == 1 else np.concatenate(banned) if banned else _NO_TOKENS


class RowColumns:
    """The columns of one set of rows, step by step. What no step changes is made once."""

    def __init__(self, rows: Iterable[SampleRow], vocab_size: int) -> None:
        self.rows = tuple(rows)
        self._words = words(vocab_size)
        numbers = np.array([row.numbers for row in self.rows], np.float64).reshape(-1, 8).T
        self._temperature = numbers[0].astype(np.float32)
        self._top_k = np.minimum(numbers[1], vocab_size).astype(np.int32)
        self._top_p, self._min_p = numbers[2].copy(), numbers[3].copy()
        self._repetition, self._presence, self._frequency = (column.astype(np.float32) for column in numbers[4:7])
        self._logprobs = numbers[7].astype(np.int32)
        self._greedy = numbers[0] == 0  # a temperature that is 0 in 32 bits alone is one
        self._seed = np.array([row.params.seed & _SEED_MASK for row in self.rows], np.uint64)
        self._special = [(i, row) for i, row in enumerate(self.rows) if not row.bare]
        self._biases = _sites((i, *row.biases) for i, row in self._special)
        self._settle()

    def now(self, ahead: Indices | None = None) -> Columns:
        """The columns of the next step.

        Args:
            ahead: how many tokens [rows] of each answer are being chosen and not pushed yet; by default none. Of a row that
                `depends` on these, what it would be without them.
        """
        position = np.fromiter(map(attrgetter("position"), self.rows), np.int64, len(self.rows))
        if ahead is not None:
            position += ahead
        if any(self.rows[i].steady for i in self._changing):
            self._settle()
        state = self._state(position, ahead) if self._changing else self._still
        return Columns(
            temperature=self._temperature,
            top_k=self._top_k,
            top_p=self._top_p,
            min_p=self._min_p,
            repetition=self._repetition,
            presence=self._presence,
            frequency=self._frequency,
            seed=self._seed,
            position=position,
            logprobs=self._logprobs,
            forced=state.forced,
            greedy=self._greedy,
            adjusted=state.adjusted,
            biases=self._biases,
            seen=state.seen,
            bans=state.bans,
            masked=state.masked,
            masks=state.masks,
        )

    def _settle(self) -> None:
        """Set apart the rows that change, and make what the others need."""
        self._changing = [i for i, row in self._special if not row.steady]
        still = [(i, row) for i, row in self._special if row.steady]
        self._banned = [_ban(i, row.bans(row.position)) for i, row in still]
        adjusted = np.zeros(len(self.rows), np.bool_)
        adjusted[[i for i, row in still if row.adjusted(row.position)]] = True
        forced, masks = np.full(len(self.rows), -1, np.int64), np.zeros((0, self._words), np.uint32)
        self._still = _State(adjusted, forced, _sites(()), _sites(self._banned), _NO_TOKENS, masks)

    def _state(self, position: Indices, ahead: Indices | None) -> _State:
        rows, changing = self.rows, self._changing
        adjusted, forced = self._still.adjusted.copy(), self._still.forced.copy()
        banned = [_ban(i, rows[i].bans(int(position[i]))) for i in changing]
        adjusted[changing] = [rows[i].adjusted(int(position[i])) for i in changing]
        masked = [i for i in changing if rows[i].constrained]
        masks = np.zeros((len(masked), self._words), np.uint32)
        for i, bits in zip(masked, masks, strict=True):
            constraint = rows[i].constraint
            assert constraint is not None, "a constrained row has a constraint"
            constraint.allowed(bits)
        for i in changing:
            limit = rows[i].limit
            if limit is not None and (ahead is None or not ahead[i]) and (token := limit.forced()) is not None:
                forced[i] = token
        bans = sorted((*self._banned, *banned), key=lambda site: site[0])
        seen = _sites((i, *rows[i].seen()) for i in changing)
        return _State(adjusted, forced, seen, _sites(bans), np.array(masked, np.int64), masks)


class _State(NamedTuple):
    """The columns that steps change: see `Columns`."""

    adjusted: NDArray[np.bool_]
    forced: Indices
    seen: Sites
    bans: Sites
    masked: Indices
    masks: NDArray[np.uint32]


class _Seen:
    """Distinct tokens of an answer, and of its prompt where that counts, each with how often it is in the answer."""

    def __init__(self, prompt: Sequence[int]) -> None:
        distinct = sorted(set(prompt))
        self._places = {token: place for place, token in enumerate(distinct)}
        self._tokens = np.array([*distinct, *[0] * 64], np.int64)
        self._counts = np.zeros(len(self._tokens), np.float32)

    def add(self, token_id: int) -> None:
        place = self._places.setdefault(token_id, len(self._places))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._tokens[place] = token_id
        self._counts[place] += 1

    def counts(self) -> tuple[Indices, NDArray[np.float32]]:
        """Tokens and counts: views, which the next token changes."""
        return self._tokens[: len(self._places)], self._counts[: len(self._places)]


_NO_TOKENS, _NO_VALUES = np.empty(0, np.int64), np.empty(0, np.float32)


def _numbers(p: SamplingParams) -> tuple[float, ...]:
    """Of each column of numbers one: the order is that in which `RowColumns` takes them apart."""
    shape, penalties = (p.top_k, p.top_p, p.min_p), (p.repetition_penalty, p.presence_penalty, p.frequency_penalty)
    return (p.temperature, *shape, *penalties, -1 if p.logprobs is None else p.logprobs)


def _needs(p: SamplingParams, limit: ThinkingLimit | None, constraint: Constraint | None) -> Iterator[str]:
    """What whoever chooses the tokens must serve, under the names of `Runner.chooses`."""
    shape = {"top_k": p.top_k != 0, "top_p": p.top_p != 1, "min_p": p.min_p != 0}
    yield from ("greedy",) if p.temperature == 0 else ("temperature", *(name for name, on in shape.items() if on))
    others = {
        "repetition_penalty": p.repetition_penalty != 1, "presence_penalty": p.presence_penalty,
        "frequency_penalty": p.frequency_penalty, "logit_bias": p.logit_bias, "bad_words": p.bad_words,
        "min_tokens": p.min_tokens, "logprobs": p.logprobs is not None, "thinking_budget": limit, "guide": constraint,
    }  # fmt: skip
    yield from (name for name, on in others.items() if on)


def _ban(row: int, tokens: Indices) -> _Site:
    return row, tokens, np.full(len(tokens), -np.inf, np.float32)


def _sites(parts: Iterable[_Site]) -> Sites:
    kept = [part for part in parts if len(part[1])]
    if not kept:
        return Sites(_NO_TOKENS, _NO_TOKENS, _NO_VALUES)
    rows, tokens, values = zip(*kept, strict=True)
    return Sites(np.repeat(np.array(rows), [len(part) for part in tokens]), np.concatenate(tokens), np.concatenate(values))
