"""An answer whose form is prescribed: its tokens are taken one by one, each when the one before is known to be right."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from ...constraints import Constraint
from ...request import TokenLogprob


class Guided:
    """What has come of one answer, and is not settled."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._waiting: deque[tuple[int, TokenLogprob | None]] = deque()
        self._pushed = False  # the first of them was pushed
        self._finish: str | None = None

    @property
    def error(self) -> str:
        """See `Constraint.error`."""
        return self._constraint.error

    def add(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob], finish: str | None) -> None:
        """Take in a piece.

        Args:
            finish: why nothing follows, in vLLM's words; None: something may.
        """
        self._waiting.extend(zip_longest(tokens, logprobs))
        self._finish = finish

    def settled(self, until: float) -> Iterator[tuple[int, TokenLogprob | None, str | None]]:
        """Tokens that the grammar has taken in, each with its log probabilities and why nothing follows it.

        Args:
            until: of `time.monotonic`: so long may be waited for a grammar.
        """
        while self._waiting and not self.error:
            token, logprob = self._waiting[0]
            if not self._pushed:
                self._constraint.push(token)
                self._pushed = True
            if not self._constraint.settle(until, only_quick=True):
                return
            self._waiting.popleft()
            self._pushed = False
            yield token, logprob, None if self._waiting else self._finish
