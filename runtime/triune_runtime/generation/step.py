"""What to run now: parts of sequences, after what KV memory has to do for them. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..runner import Order
from .sequence import Sequence


class Slice(NamedTuple):
    """Run `length` tokens of `sequence` from its token `start`: its own, and then `drafts` of the tokens that may follow."""

    sequence: Sequence
    start: int
    length: int  # drafts included
    samples: bool  # whether the next token can be chosen after it
    turn: int  # of the sequence
    drafts: tuple[int, ...] = ()
    fed: bool = False  # its last token is the one that the step before chooses
    first: bool = False  # nothing of the sequence has run before
    siblings: tuple[Sequence, ...] = ()  # who choose their first token after it too
    scored: bool = False  # the log probability of each token is wanted

    def counts_for(self, taker: Sequence) -> bool:
        """Whether one of the takers still has the slot in which this was launched."""
        return taker.slot is not None and taker.turn == self.turn

    @property
    def takers(self) -> tuple[Sequence, ...]:
        """All sequences that choose a token after it."""
        return (self.sequence, *self.siblings) if self.siblings else (self.sequence,)


@dataclass(frozen=True, slots=True)
class Step:
    """What to run now: the slices, once KV memory has done what it is told."""

    orders: tuple[Order, ...]
    slices: tuple[Slice, ...]
