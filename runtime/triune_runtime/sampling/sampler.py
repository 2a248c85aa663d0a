"""Every request's part in sampling, from its first token to its last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..constraints import Constraint
from ..errors import TriuneError
from ..request import Request, TokenLogprob
from ..runner import Rows
from ..text.reasoning import ThinkingLimit
from .columns import Columns, Indices
from .host import choose
from .rows import RowColumns, SampleRow


class SamplingError(TriuneError):
    """Some sequences have no token to choose: their logits are not numbers, or all are banned. `keys` names these."""

    def __init__(self, keys: frozenset[int]) -> None:
        super().__init__(f"no token can be chosen for {len(keys)} sequences: their logits are not numbers, or all are banned")
        self.keys = keys


class Sampler:
    """Chooses the next token of every sequence of a step, or takes it from a runner that has chosen it."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rows: dict[int, SampleRow] = {}
        self._constrained: set[int] = set()  # keys of rows with a constraint
        self._varied = 0  # of the rows, how many are not simple
        self._together = RowColumns((), vocab_size)  # the rows of the last step
        self._alone: dict[int, RowColumns] = {}  # of rows that were sampled one by one

    def add(
        self,
        request: Request,
        stop_token_ids: frozenset[int],
        limit: ThinkingLimit | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """Expect rows of `request`; its stop tokens are masked until `min_tokens`, and what `limit` forces is chosen."""
        row = self._rows[request.key] = SampleRow(
            request.params,
            request.prompt,
            stop_token_ids=[t for t in stop_token_ids if t < self._vocab_size],
            limit=limit,
            constraint=constraint,
        )
        self._varied += not row.simple
        if constraint is not None:
            self._constrained.add(request.key)

    def remove(self, key: int) -> None:
        """Forget a request, if it is known."""
        if (row := self._rows.pop(key, None)) is not None:
            self._varied -= not row.simple
        self._alone.pop(key, None)
        self._constrained.discard(key)

    @property
    def simple(self) -> bool:
        """Whether every request takes the best token of its logits as they are, and wants nothing else of them."""
        return not self._varied

    def settle(self, keys: Iterable[int], until: float, *, only_quick: bool = False) -> list[int]:
        """Wait, at most until `until` (`time.monotonic`), until it is known what may come next in the answers of `keys`.

        Args:
            only_quick: see `Constraint.settle`.

        Returns those of whom it is not: their next token cannot be chosen yet.
        """
        if not self._constrained:
            return []
        constraints = [(key, self._rows[key].constraint) for key in keys if key in self._constrained]
        return [
            key
            for key, constraint in constraints
            if constraint is not None and not constraint.settle(until, only_quick=only_quick)
        ]

    def complete(self, key: int) -> bool:
        """Whether a request's constraint allows no further token."""
        constraint = self._rows[key].constraint
        return constraint is not None and constraint.finished

    def error(self, key: int) -> str:
        """Why a request's constraint allows no token, if it does not."""
        constraint = self._rows[key].constraint
        return constraint.error if constraint is not None else ""

    def overlaps(self, key: int, chooses: frozenset[str]) -> bool:
        """Whether a runner that serves `chooses` can choose a request's token before the host knows the one before."""
        row = self._rows[key]
        return not row.depends and row.needs <= chooses

    def chosen_by(self, key: int, chooses: frozenset[str], drafts: int = 0) -> bool:
        """Whether a runner that serves `chooses` can choose the next 1 + `drafts` tokens of a request itself."""
        row = self._rows[key]
        if row.simple:
            return "greedy" in chooses
        if row.plain and "greedy" in chooses:
            return not (drafts and row.constraint is not None)  # which may begin behind an accepted draft
        return row.needs <= chooses

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

    def sample(
        self,
        keys: Sequence[int],
        made: Rows,
        at: Sequence[int] | None = None,
        theirs: NDArray[np.bool_] | None = None,
    ) -> tuple[list[int], dict[int, TokenLogprob]]:
        """One token for each of `keys`, and by key the log probabilities of those that want them.

        Args:
            at: the row of each key in `made`; by default they are one behind the other.
            theirs: see `choose`.

        Log probabilities are the model's own: of the logits before bias, penalties and temperature.

        Raises:
            SamplingError: a row has no token to choose; nothing is recorded for any row.
        """
        choice = choose(made.logits, self.columns(keys), best=made.best, theirs=theirs, at=at)
        if not choice.usable.all():
            raise SamplingError(frozenset(key for key, can in zip(keys, choice.usable, strict=True) if not can))
        tokens: list[int] = choice.tokens.tolist()
        rows = self._rows
        for key, token in zip(keys, tokens, strict=True):
            rows[key].push(token)
        return tokens, {keys[i]: entry for i, entry in choice.logprobs.items()}

    def guess(self, key: int, logits: NDArray[np.float32], ahead: int = 0) -> int:
        """The token that `logits` [vocab_size], someone else's guess, would give `ahead` tokens after the next.

        A sampled request draws with the number it will draw with there, so guesses that are nearly right give the same token.
        """
        return int(choose(logits[None], self.columns((key,), np.array([ahead]))).tokens[0])
