"""A runner without a model: its logits are a hash of all that was run in the slot. For tests and for trying the server out.

It keeps every slot's tokens, and where they were cut into runs, as a real kernel's last bits do. So a wrong slot, a lost token,
a wrong copy or a chunk border that depends on the load shows at once: as other logits or as an assertion. Tokens with drafts
behind them count as run one by one, and only drafts can be taken back.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...runner import Immediate, Work


class FakeRunner(Immediate):
    """See `Runner`."""

    scores = True

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
        self._drafts: dict[int, int] = {}  # how many of a slot's last tokens may be taken back

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Immediate.run`."""
        slots = [item.slot for item in work]
        assert work and len(set(slots)) == len(slots), f"a run over slots {slots}"
        return np.stack([row for item in work for row in self._append(item)])

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Immediate.copy_slot`."""
        self._take_back(source, length)
        self._slots[target], self._drafts[target] = list(self._slots[source]), 0

    def _append(self, item: Work) -> list[NDArray[np.float32]]:
        assert item.tokens, f"nothing to run in slot {item.slot}"
        outside = [t for t in item.tokens if not 0 <= t < self.vocab_size]
        assert not outside, f"tokens {outside} are not in the vocabulary of {self.vocab_size}"
        if item.start == 0:  # a new owner
            self._slots[item.slot] = []
        self._take_back(item.slot, item.start)
        self._drafts[item.slot] = item.drafts
        assert item.drafts < len(item.tokens), f"{item.drafts} drafts among {len(item.tokens)} tokens"
        singly = item.drafts or item.scored
        runs = [(token,) for token in item.tokens] if singly else [item.tokens]
        rows = []
        for run in runs:
            self._slots[item.slot].append(run)
            rows.append(self._logits(self._slots[item.slot]))
        return rows[-item.rows :]

    def _take_back(self, slot: int, length: int) -> None:
        """Forget the drafts in `slot` from token `length` on."""
        held = self._length(slot)
        assert 0 <= held - length <= self._drafts.get(slot, 0), (
            f"slot {slot} holds {held} tokens, {self._drafts.get(slot, 0)} of them drafts; it is to hold {length}"
        )
        del self._slots[slot][len(self._slots[slot]) - (held - length) :]

    def _length(self, slot: int) -> int:
        return sum(map(len, self._slots.get(slot, ())))

    def _logits(self, runs: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        seed = zlib.crc32(repr(runs).encode())
        logits = np.random.default_rng(seed).standard_normal(self.vocab_size, np.float32)
        if self._stop_token_ids and seed % self._mean_length == 0:
            logits[self._stop_token_ids[seed // self._mean_length % len(self._stop_token_ids)]] = logits.max() + 1
        return logits
