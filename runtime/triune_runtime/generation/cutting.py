"""Where prompts are cut, and what their parts take of a step's budget. Integers only."""

from __future__ import annotations

from ..manifest import Limits
from .sequence import Sequence


class Cutting:
    """Parts of prompts end at multiples of `prefill_chunk` whatever else is running.

    A prompt whose log probabilities are wanted costs logits after every token: it is cut finer, and its tokens count for more.
    """

    def __init__(self, limits: Limits, most_scored: int | None) -> None:
        """
        Args:
            most_scored: tokens of scored prompts in one step; None: as many as of others.
        """
        self._chunk, self._budget = limits.prefill_chunk, limits.step_tokens
        self._scored_chunk = min(most_scored or limits.prefill_chunk, limits.prefill_chunk)
        self._scored_weight = max(1, limits.step_tokens // (most_scored or limits.step_tokens))

    def cost(self, length: int, *, scored: bool) -> int:
        """What a part of a prompt takes of a step's budget."""
        return length * self._scored_weight if scored else length

    def length(self, start: int, sequence: Sequence, budget: int) -> int:
        """Tokens of a prompt to run from `start` on: to its end, or to the last multiple of `prefill_chunk` that the budget
        reaches; 0: it does not reach any.
        """
        left = len(sequence.tokens) - start
        if sequence.unscored:
            length = min(left, self._scored_chunk - start % self._scored_chunk)
            return length if self.cost(length, scored=True) <= budget else 0
        if left > budget:
            return max((start + budget) // self._chunk * self._chunk - start, 0)
        if self._budget == self._chunk:  # who was found up to the middle of a chunk is cut where it is without
            return min(left, self._chunk - start % self._chunk)
        return left
