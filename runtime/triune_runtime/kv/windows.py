"""Buffers of layers with a window: which positions they hold of a sequence. Integers only.

A buffer of C positions for a window of W holds the latest L of T tokens, in order, from its start on: L = T up to C, and beyond
that L drops by C - W + 1 whenever it would exceed C. It depends on T alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Window:
    """The buffers of one window and one capacity."""

    window: int
    positions: int  # of a slot's buffer

    def first(self, total: int) -> int:
        """The oldest position in the buffer of a sequence of `total` tokens: T - L."""
        step = self.positions - self.window + 1
        return step * -(-max(0, total - self.positions) // step)

    def needed(self, length: int) -> int:
        """The oldest position that a sequence of `length` tokens reads again."""
        return max(self.first(length), length - self.window + 1)

    def keeps(self, total: int, length: int) -> bool:
        """Whether the buffer of a sequence of `total` tokens has all that its first `length` need to go on."""
        return self.first(total) <= self.needed(length)
