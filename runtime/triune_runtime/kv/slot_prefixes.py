"""Which beginnings of prompts lie computed in which slots. Names of them only, see `names`."""

from __future__ import annotations

from collections.abc import Collection, Sequence


class SlotPrefixes:
    """The names of what each slot holds, each of one unit of tokens more than the one before."""

    def __init__(self, slots: int) -> None:
        self._of: list[list[bytes]] = [[] for _ in range(slots)]
        self._slots: dict[bytes, dict[int, None]] = {}  # the inverse

    def of(self, slot: int) -> Sequence[bytes]:
        return self._of[slot]

    def add(self, slot: int, names: Sequence[bytes]) -> None:
        """What lies there goes on with these."""
        self._of[slot] += names
        for name in names:
            self._slots.setdefault(name, {})[slot] = None

    def cut(self, slot: int, count: int = 0) -> None:
        """Only the first `count` units lie there still."""
        names = self._of[slot]
        for name in names[count:]:
            slots = self._slots[name]
            del slots[slot]
            if not slots:
                del self._slots[name]
        del names[count:]

    def clear(self) -> None:
        """Nothing lies anywhere."""
        self._slots.clear()
        for names in self._of:
            names.clear()

    def longest(self, names: Sequence[bytes]) -> int:
        """How many of `names`, from the first on, some slot has."""
        for count, name in enumerate(names):
            if name not in self._slots:
                return count
        return len(names)

    def having(self, name: bytes) -> Collection[int]:
        """The slots that have it."""
        return self._slots.get(name, {}).keys()

    def check(self) -> None:
        """Assert that both directions agree."""
        pairs = {(name, slot) for slot, names in enumerate(self._of) for name in names}
        assert pairs == {(name, slot) for name, slots in self._slots.items() for slot in slots}, "a prefix is in another slot"
