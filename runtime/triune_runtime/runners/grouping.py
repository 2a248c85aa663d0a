"""Which items of a run are one batch, which run alone, and where each one's logits go. Integers only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from . import Work


@dataclass(frozen=True, slots=True)
class Grouping:
    """A run of runners with slots: a batch of the first slots, one token each, and everything else one by one."""

    batch: tuple[Work, ...]  # of slots 0, 1, ..., in this order
    alone: tuple[Work, ...]
    rows: dict[int, slice]  # slot -> its rows of the logits
    count: int  # rows of the logits


def group(work: Sequence[Work], slots: int) -> Grouping:
    """Sort the items of a run.

    Args:
        slots: how many there are.
    """
    ends = list(itertools.accumulate(1 + item.drafts for item in work))
    rows = {item.slot: slice(end - 1 - item.drafts, end) for item, end in zip(work, ends, strict=True)}
    single = {item.slot: item for item in work if len(item.tokens) == 1}
    batch = tuple(single[slot] for slot in itertools.takewhile(single.__contains__, range(slots)))
    return Grouping(batch, tuple(item for item in work if item.slot >= len(batch)), rows, ends[-1])
