"""Guesses by prompt lookup (Saxena 2023): what followed the last few tokens when they came before. No model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..generation.sequence import Sequence

_SIZES = (4, 2)  # tokens that must have come before; the longest match wins, of equal ones the latest


@dataclass(slots=True)
class _Index:
    """Where the tokens after each n-gram of a sequence begin."""

    seen: int = 0  # tokens whose n-grams are in it
    after: dict[tuple[int, ...], int] = field(default_factory=dict)


class LookupDrafter:
    """See `Drafter`."""

    runs_model = False
    trust = 0.3

    def __init__(self) -> None:
        self._indices: dict[int, _Index] = {}

    def follow(self, sequence: Sequence) -> None:
        """Nothing: the tokens are there."""

    def draft(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        """See `Drafter.draft`. What was found is continued by itself where it reaches the sequence's end: a loop goes on."""
        tokens = sequence.tokens
        index = self._indices.setdefault(sequence.key, _Index())
        for end in range(max(index.seen, 1), len(tokens)):  # n-grams that something follows: those before the last token
            for size in _SIZES:
                if end >= size:
                    index.after[tuple(tokens[end - size : end])] = end
        index.seen = len(tokens)
        for size in _SIZES:
            found = index.after.get(tuple(tokens[-size:])) if len(tokens) >= size else None
            if found is not None:
                drafts: list[int] = []
                for at in range(found, found + count):
                    drafts.append(tokens[at] if at < len(tokens) else drafts[at - len(tokens)])
                return tuple(drafts)
        return ()

    def forget(self, key: int) -> None:
        """See `Drafter.forget`."""
        self._indices.pop(key, None)
