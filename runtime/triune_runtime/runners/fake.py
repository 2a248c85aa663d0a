"""A runner without a model: its logits are a hash of all that was run in the slot. For tests and for trying the server out.

It keeps every slot's tokens, and where they were cut into runs, as a real kernel's last bits do. So a wrong slot, a lost token,
a wrong copy or a chunk border that depends on the load shows at once: as other logits or as an assertion.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import Work


class FakeRunner:
    """See `Runner`."""

    def __init__(self, vocab_size: int, stop_token_ids: Sequence[int] = (), *, mean_length: int = 32) -> None:
        """
        Args:
            stop_token_ids: one of these is the best token now and then, so that answers end.
            mean_length: about how many tokens a greedy answer then has.
        """
        self.vocab_size = vocab_size
        self._stop_token_ids = tuple(stop_token_ids)
        self._mean_length = mean_length
        self._slots: dict[int, list[tuple[int, ...]]] = {}  # the runs of each slot's sequence

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Runner.run`."""
        slots = [item.slot for item in work]
        assert work and len(set(slots)) == len(slots), f"a run over slots {slots}"
        return np.stack([self._append(item) for item in work])

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Runner.copy_slot`."""
        held = self._length(source)
        assert held == length, f"slot {source} holds {held} tokens, {length} are to be copied"
        self._slots[target] = list(self._slots[source])

    def _append(self, item: Work) -> NDArray[np.float32]:
        assert item.tokens, f"nothing to run in slot {item.slot}"
        outside = [t for t in item.tokens if not 0 <= t < self.vocab_size]
        assert not outside, f"tokens {outside} are not in the vocabulary of {self.vocab_size}"
        if item.start == 0:  # a new owner
            self._slots[item.slot] = []
        held = self._length(item.slot)
        assert held == item.start, f"slot {item.slot} holds {held} tokens, the work starts at {item.start}"
        self._slots[item.slot].append(item.tokens)
        return self._logits(self._slots[item.slot])

    def _length(self, slot: int) -> int:
        return sum(map(len, self._slots.get(slot, ())))

    def _logits(self, runs: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        seed = zlib.crc32(repr(runs).encode())
        logits = np.random.default_rng(seed).standard_normal(self.vocab_size, np.float32)
        if self._stop_token_ids and seed % self._mean_length == 0:
            logits[self._stop_token_ids[seed // self._mean_length % len(self._stop_token_ids)]] = logits.max() + 1
        return logits
