"""Where sequences that decode are brought together. Integers only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate


def place(decoding: Collection[int], slots: int, free: Sequence[int]) -> Collection[int]:
    """Neighbouring slots for all of `decoding`, reached by the fewest copies; where they are, if there are none.

    Args:
        slots: in all; those that are neither decoding nor free cannot be had.
        free: the first are the first to be written over.
    """
    count = len(decoding)
    if not decoding or max(decoding) - min(decoding) + 1 == count:
        return decoding
    taken = set(decoding)
    can = taken.union(free)
    inside = [0, *accumulate(slot in taken for slot in range(slots))]
    usable = [0, *accumulate(slot in can for slot in range(slots))]
    firsts = [at for at in range(slots - count + 1) if usable[at + count] - usable[at] == count]
    if not firsts:
        return decoding
    most = max(inside[at + count] - inside[at] for at in firsts)
    rank = {slot: number for number, slot in enumerate(free)}

    def lost(first: int) -> list[int]:
        return sorted((rank[slot] for slot in range(first, first + count) if slot not in taken), reverse=True)

    best = min((at for at in firsts if inside[at + count] - inside[at] == most), key=lost)
    return range(best, best + count)
