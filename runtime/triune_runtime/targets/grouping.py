"""Which items of a run are a batch, which run alone, and where each one's logits go. Integers only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..runner import Work


@dataclass(frozen=True, slots=True)
class Grouping:
    """A run of runners with slots: batches of neighbouring slots, one token each, and everything else one by one."""

    batches: tuple[tuple[Work, ...], ...]  # each in the order of its slots
    alone: tuple[Work, ...]
    rows: dict[int, slice]  # slot -> its rows of the logits
    count: int  # rows of the logits


def group(work: Sequence[Work], *, from_first: bool = False) -> Grouping:
    """Sort the items of a run.

    Args:
        from_first: only the batch that begins with slot 0 is one; the others run alone.
    """
    ends = list(itertools.accumulate(item.rows for item in work))
    rows = {item.slot: slice(end - item.rows, end) for item, end in zip(work, ends, strict=True)}
    single = neighbours([item for item in work if len(item.tokens) == 1])
    batches = tuple(batch for batch in single if not (from_first and batch[0].slot))
    batched = {item.slot for batch in batches for item in batch}
    return Grouping(batches, tuple(item for item in work if item.slot not in batched), rows, ends[-1])


def neighbours(work: Sequence[Work]) -> Iterator[tuple[Work, ...]]:
    """`work` in groups of slots that follow each other."""
    by_slot = {item.slot: item for item in work}
    for first in sorted(slot for slot in by_slot if slot - 1 not in by_slot):
        yield tuple(by_slot[slot] for slot in itertools.takewhile(by_slot.__contains__, itertools.count(first)))
