"""Blocks of which the first tokens are what a prompt goes on with, though not all of them are.

A prompt seldom ends where a block does: what it shares with others ends within one, which is copied rather than computed
again. A block can be found by its first eighth behind the name of what precedes it, its first two eighths, and so on.

Integers and hashes only.
"""

from __future__ import annotations

from itertools import takewhile

from .names import Names

_PARTS = 8  # of a block


class Beginnings:
    """Which block begins how."""

    def __init__(self, block_tokens: int) -> None:
        self._names = Names(max(block_tokens // _PARTS, 1))
        self._found: dict[bytes, int] = {}  # name -> a block that begins so
        self._names_of: dict[int, list[bytes]] = {}

    def add(self, block: int, before: bytes | None, salt: bytes, packed: bytes) -> None:
        """`block` holds these tokens, or begins with them.

        Args:
            before: name of what precedes them; None: nothing does.
        """
        for name in self._names.behind(before, salt, packed):
            if self._found.setdefault(name, block) == block:
                names = self._names_of.setdefault(block, [])
                if name not in names:
                    names.append(name)

    def find(self, before: bytes | None, salt: bytes, packed: bytes) -> tuple[int, int] | None:
        """The block that begins with the most of these tokens, and how many they are."""
        names = self._names.behind(before, salt, packed) if self._found else ()
        known = list(takewhile(lambda name: name in self._found, names))
        return (self._found[known[-1]], len(known) * self._names.unit) if known else None

    def drop(self, block: int) -> None:
        """It is not found any more."""
        for name in self._names_of.pop(block, ()):
            del self._found[name]

    def clear(self) -> None:
        self._found.clear()
        self._names_of.clear()

    def __contains__(self, block: int) -> bool:
        return block in self._names_of

    def check(self) -> None:
        """Assert that the books agree."""
        there = {name: block for block, names in self._names_of.items() for name in names}
        assert there == self._found, "a beginning leads to another block"
