"""Guessing the next tokens, so that one run can check several. What is guessed changes speed alone, never a token.

A guess counts only if the sampler, given the model's own logits, chooses that very token in its place.
"""

from __future__ import annotations

from typing import Protocol

from ..generation.sequence import Sequence


class Drafter(Protocol):
    """One way of guessing."""

    @property
    def runs_model(self) -> bool:
        """Whether each draft costs a run, or next to nothing."""
        ...

    @property
    def trust(self) -> float:
        """Share of its drafts expected to be right before anything is known of a sequence."""
        ...

    def follow(self, sequence: Sequence) -> None:
        """Take in what the sequence's latest run has made, before there is anything to guess."""
        ...

    def draft(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        """At most `count` tokens that may follow `sequence.tokens`, of which all but the last are computed."""
        ...

    def forget(self, key: int) -> None:
        """A sequence has ended; it may be one that was never seen."""
        ...
