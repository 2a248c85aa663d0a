"""Names of the beginnings of prompts: equal names mean equal tokens behind equal salts. Integers and hashes only.

A name is a keyed BLAKE2b of 128 bits of the name before it and of the tokens that follow, so it stands for all tokens up to
there. The key is this process's own and secret: nobody can look for two beginnings of one name, and by accident two meet once
in 2^64. So no tokens are kept to be compared. A salt is hashed apart from tokens (`person`): none can pass for the other.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from hashlib import blake2b

_BYTES = 16
_TOKEN = "i"  # the array's type: 4 bytes a token


class Names:
    """Names of the first `unit` tokens of a prompt, of the first two times as many, and so on."""

    def __init__(self, unit: int) -> None:
        assert unit > 0, f"units of {unit} tokens"
        self.unit = unit
        key = secrets.token_bytes(32)
        self._salts = blake2b(digest_size=_BYTES, key=key, person=b"salt")
        self._units = blake2b(digest_size=_BYTES, key=key, person=b"tokens")
        self._latest: tuple[bytes, bytes, tuple[bytes, ...]] = b"", b"", ()  # salt, tokens and names of the last question

    def of(self, tokens: Sequence[int], salt: bytes) -> tuple[bytes, ...]:
        """Of every whole number of units in `tokens`. Quick where the same is asked again, as for who waits for room."""
        whole = array(_TOKEN, tokens).tobytes()
        if (salt, whole) != self._latest[:2]:
            self._latest = salt, whole, tuple(self._named(self._root(salt), whole))
        return self._latest[2]

    def further(self, names: Sequence[bytes], salt: bytes, tokens: Sequence[int], length: int) -> list[bytes]:
        """Those that follow `names` in the first `length` of `tokens`."""
        return self.behind(names[-1] if names else None, salt, tokens[len(names) * self.unit : length])

    def behind(self, name: bytes | None, salt: bytes, tokens: Sequence[int]) -> list[bytes]:
        """Of every whole number of units in `tokens`, which follow what has `name`, or nothing."""
        return self._named(self._root(salt) if name is None else name, array(_TOKEN, tokens).tobytes())

    def _root(self, salt: bytes) -> bytes:
        hashed = self._salts.copy()
        hashed.update(salt)
        return hashed.digest()

    def _named(self, name: bytes, tokens: bytes) -> list[bytes]:
        found, size = list[bytes](), self.unit * array(_TOKEN).itemsize
        for end in range(size, len(tokens) + 1, size):
            hashed = self._units.copy()
            hashed.update(name + tokens[end - size : end])
            name = hashed.digest()
            found.append(name)
        return found


class Coming:
    """Names of beginnings that are being computed now."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, tuple[bytes, ...]]] = {}  # slot -> how many have come, and all

    def begin(self, slot: int, names: Sequence[bytes], known: int) -> None:
        """A prompt with these names is computed in `slot`; its first `known` are there."""
        if known < len(names):
            self._left[slot] = known, tuple(names)

    def come(self, slot: int, count: int) -> None:
        """The first `count` names of what is computed in `slot` can be found, or never will be."""
        if slot in self._left:
            names = self._left.pop(slot)[1]
            self.begin(slot, names, count)

    def end(self, slot: int) -> None:
        """Nothing more is computed in `slot`."""
        self._left.pop(slot, None)

    def clear(self) -> None:
        """Nothing of what is computed now will be found."""
        self._left.clear()

    def __contains__(self, name: bytes) -> bool:
        return any(name in names[count:] for count, names in self._left.values())
