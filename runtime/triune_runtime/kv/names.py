"""Names of the beginnings of prompts: equal names mean equal tokens behind equal salts. Integers and hashes only.

A name is a keyed BLAKE2b of 128 bits of the name before it and of the tokens that follow, so it stands for all tokens up to
there. The key is this process's own and secret: nobody can look for two beginnings of one name, and by accident two meet once
in 2^64. So no tokens are kept to be compared. A salt is hashed apart from tokens (`person`): none can pass for the other.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from ..packing import TOKEN_BYTES, pack

_BYTES = 16


class Prompt:
    """A prompt as memory is asked for it. It never changes, so what names it has is worked out once, for who asks first."""

    __slots__ = ("_named", "_packed", "salt", "tokens")

    def __init__(self, tokens: Sequence[int], salt: bytes | None = b"", packed: bytes | None = None) -> None:
        """
        Args:
            salt: prompts with another one share nothing; None: it shares nothing with anybody.
            packed: `tokens`, if they are packed already.
        """
        self.tokens, self.salt, self._packed = tokens, salt, packed
        self._named: tuple[Names, tuple[bytes, ...]] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def packed(self) -> bytes:
        """All its tokens, packed."""
        if self._packed is None:
            self._packed = pack(self.tokens)
        return self._packed

    def named(self, names: Names) -> tuple[bytes, ...]:
        """See `Names.of`."""
        if self._named is None or self._named[0] is not names:
            self._named = names, names.of(self)
        return self._named[1]


class Names:
    """Names of the first `unit` tokens of a prompt, of the first two times as many, and so on."""

    def __init__(self, unit: int) -> None:
        assert unit > 0, f"units of {unit} tokens"
        self.unit = unit
        key = secrets.token_bytes(32)
        self._salts = blake2b(digest_size=_BYTES, key=key, person=b"salt")
        self._units = blake2b(digest_size=_BYTES, key=key, person=b"tokens")
        self._size = unit * TOKEN_BYTES
        # Of the last question what came before, its tokens and their names: the next one often begins alike.
        self._latest: tuple[bytes, bytes, tuple[bytes, ...]] = b"", b"", ()

    def of(self, prompt: Prompt) -> tuple[bytes, ...]:
        """Of every whole number of units in `prompt`, which has a salt."""
        assert prompt.salt is not None, "what shares nothing has no names"
        return self._following(self._root(prompt.salt), prompt.packed)

    def further(self, names: Sequence[bytes], salt: bytes, tokens: Sequence[int], length: int) -> tuple[bytes, ...]:
        """Those that follow `names` in the first `length` of `tokens`."""
        return self.behind(names[-1] if names else None, salt, pack(tokens[len(names) * self.unit : length]))

    def behind(self, name: bytes | None, salt: bytes, packed: bytes) -> tuple[bytes, ...]:
        """Of every whole number of units in `packed` tokens, which follow what has `name`, or nothing."""
        return self._following(self._root(salt) if name is None else name, packed)

    def _root(self, salt: bytes) -> bytes:
        hashed = self._salts.copy()
        hashed.update(salt)
        return hashed.digest()

    def _following(self, name: bytes, packed: bytes) -> tuple[bytes, ...]:
        latest, before, known = self._latest
        found, size, ends = list[bytes](), self._size, range(self._size, len(packed) + 1, self._size)
        if name == latest:  # as far as these tokens are those, so are their names
            for end, same in zip(ends, known, strict=False):
                if packed[end - size : end] != before[end - size : end]:
                    break
                found.append(same)
        last = found[-1] if found else name
        for end in ends[len(found) :]:
            hashed = self._units.copy()
            hashed.update(last + packed[end - size : end])
            last = hashed.digest()
            found.append(last)
        self._latest = name, packed, tuple(found)
        return self._latest[2]


class Coming:
    """Names of beginnings that are being computed now."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, tuple[bytes, ...]]] = {}  # slot -> how many have come, and all
        self._names = Counter[bytes]()  # of those that are still to come: in how many slots

    def begin(self, slot: int, names: Sequence[bytes], known: int) -> None:
        """A prompt with these names is computed in `slot`; its first `known` are there."""
        if known < len(names):
            self._left[slot] = known, tuple(names)
            self._names.update(names[known:])

    def come(self, slot: int, count: int) -> None:
        """The first `count` names of what is computed in `slot` can be found, or never will be."""
        if slot in self._left:
            names = self._left[slot][1]
            self.end(slot)
            self.begin(slot, names, count)

    def end(self, slot: int) -> None:
        """Nothing more is computed in `slot`."""
        known, names = self._left.pop(slot, (0, ()))
        for name in names[known:]:
            self._names[name] -= 1
            if not self._names[name]:
                del self._names[name]

    def clear(self) -> None:
        """Nothing of what is computed now will be found."""
        self._left.clear()
        self._names.clear()

    def __contains__(self, name: bytes) -> bool:
        return name in self._names
