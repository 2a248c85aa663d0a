"""KV memory in slots: a stretch of fixed length for each sequence. Integers only; no sequence, no tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..runner import Copy, Order
from .store import Held, KvUsage


class SlotStore:
    """See `KvStore`. Slots 0 to size - 1, each free or held; decoding sequences are brought to the first of them.

    A slot has room for the longest sequence from the beginning, so nobody is ever sent away again, and nothing is shared.
    """

    def __init__(self, slots: int, length: int) -> None:
        """
        Args:
            length: tokens of a slot.
        """
        assert slots > 0, f"a store of {slots} slots"
        self._held = [False] * slots
        self._free = slots
        self._length = length
        self._orders: list[Copy] = []

    @property
    def slots(self) -> int:
        return len(self._held)

    @property
    def longest(self) -> int:
        return self._length

    def admits(self, prompt: Sequence[int], members: int, salt: bytes = b"") -> int | None:
        """See `KvStore.admits`."""
        return 0 if self._free >= members else None

    def admit(self, prompt: Sequence[int], members: int, salt: bytes = b"") -> Held:
        """See `KvStore.admit`: the lowest free slots."""
        return Held(tuple(self._acquire() for _ in range(members)), 0, self._length, members, 0)

    def extend(self, slot: int, length: int) -> int:
        """See `KvStore.extend`: a slot has all its room from the beginning."""
        return self._length

    def fork(self, slot: int, targets: Sequence[int], length: int) -> int:
        """See `KvStore.fork`: by copies."""
        self._orders += [Copy(slot, target, length) for target in targets]
        return self._length

    def settle(self, slot: int, tokens: Sequence[int], length: int) -> None:
        """See `KvStore.settle`: slots share nothing."""

    def release(self, slot: int) -> None:
        """See `KvStore.release`."""
        assert self._held[slot], f"slot {slot} is released but nobody holds it"
        self._held[slot] = False
        self._free += 1
        for at in range(len(self._orders) - 1, -1, -1):  # copies that nobody needs any more
            if self._orders[at].target == slot and all(later.source != slot for later in self._orders[at:]):
                del self._orders[at]

    def gaps(self, decoding: Iterable[int]) -> bool:
        """See `KvStore.gaps`."""
        slots = list(decoding)
        return max(slots, default=-1) >= len(slots)

    def arrange(self, decoding: Mapping[int, int]) -> dict[int, int]:
        """See `KvStore.arrange`: by the fewest copies that make them slots 0 to n - 1. Every target was free."""
        prefix = range(len(decoding))
        outside = sorted(slot for slot in decoding if slot not in prefix)
        holes = (slot for slot in prefix if slot not in decoding) if outside else ()
        moves = dict(zip(outside, holes, strict=True))
        for source, target in moves.items():
            assert self._held[source] and not self._held[target], f"slot {source} cannot move to {target}"
            self._held[source], self._held[target] = False, True
            self._orders.append(Copy(source, target, decoding[source]))
        return moves

    def orders(self) -> tuple[Order, ...]:
        """See `KvStore.orders`."""
        if not self._orders:
            return ()
        orders, self._orders = tuple(self._orders), []
        return orders

    def usage(self) -> KvUsage:
        """See `KvStore.usage`."""
        return KvUsage(blocks=len(self._held), used=len(self._held) - self._free, block_tokens=self._length)

    def check(self, holders: Sequence[int]) -> None:
        """See `KvStore.check`."""
        held = [slot for slot, is_held in enumerate(self._held) if is_held]
        assert sorted(holders) == held, f"slots {held} are held, their holders say {sorted(holders)}"
        assert self._free == len(self._held) - len(held), f"{self._free} slots are said to be free"

    def _acquire(self) -> int:
        assert self._free, f"all {self.slots} slots are held"
        slot = self._held.index(False)
        self._held[slot] = True
        self._free -= 1
        return slot
