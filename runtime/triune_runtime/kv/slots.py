"""Who owns which KV slot. Integers only; no sequence, no tensor."""

from __future__ import annotations

from collections.abc import Sequence


class SlotPool:
    """Slots 0 to size - 1, each free or held."""

    def __init__(self, size: int) -> None:
        assert size > 0, f"a pool of {size} slots"
        self._held = [False] * size

    @property
    def size(self) -> int:
        return len(self._held)

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self._held.count(False)

    def acquire(self) -> int:
        """Hold the lowest free slot. Ask `free` first: an empty pool is our own bug."""
        assert self.free, f"all {self.size} slots are held"
        slot = self._held.index(False)
        self._held[slot] = True
        return slot

    def release(self, slot: int) -> None:
        """Give a held slot back."""
        assert self._held[slot], f"slot {slot} is released but nobody holds it"
        self._held[slot] = False

    def compact(self, members: Sequence[int]) -> dict[int, int]:
        """Move `members`, all held, so that they are slots 0 to len(members) - 1.

        Returns source -> target of the fewest moves that do it. Every target was free, so copying in any order is safe.
        """
        prefix = range(len(members))
        holes = sorted(set(prefix) - set(members))
        outside = sorted(slot for slot in members if slot not in prefix)
        moves = dict(zip(outside, holes, strict=True))
        for source, target in moves.items():
            assert self._held[source] and not self._held[target], f"slot {source} cannot move to {target}"
            self._held[source], self._held[target] = False, True
        return moves

    def check(self, holders: Sequence[int]) -> None:
        """Assert that exactly `holders` are held, each once."""
        held = [slot for slot, is_held in enumerate(self._held) if is_held]
        assert sorted(holders) == held, f"slots {held} are held, their holders say {sorted(holders)}"
