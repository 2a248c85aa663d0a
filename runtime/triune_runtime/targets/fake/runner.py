"""A runner without a model: its logits are a hash of all that was run in the slot. For tests and for trying the server out.

It keeps every slot's tokens, and where they were cut into runs, as a real kernel's last bits do. So a wrong slot, a lost token,
a wrong copy or a chunk border that depends on the load shows at once: as other logits or as an assertion. Tokens with drafts
behind them count as run one by one. What is taken back are drafts, or all that came after some run, by who begins as it did.
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

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Immediate.run`."""
        slots = [item.slot for item in work]
        assert work and len(set(slots)) == len(slots), f"a run over slots {slots}"
        return np.stack([row for item in work for row in self._append(item)])

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Immediate.copy_slot`."""
        self._slots[target] = self._beginning(source, length)

    def _append(self, item: Work) -> list[NDArray[np.float32]]:
        assert item.tokens, f"nothing to run in slot {item.slot}"
        outside = [t for t in item.tokens if not 0 <= t < self.vocab_size]
        assert not outside, f"tokens {outside} are not in the vocabulary of {self.vocab_size}"
        self._slots[item.slot] = self._beginning(item.slot, item.start)
        assert item.drafts < len(item.tokens), f"{item.drafts} drafts among {len(item.tokens)} tokens"
        singly = item.drafts or item.scored
        runs = [(token,) for token in item.tokens] if singly else [item.tokens]
        rows = []
        for run in runs:
            self._slots[item.slot].append(run)
            rows.append(self._logits(self._slots[item.slot]))
        return rows[-item.rows :]

    def _beginning(self, slot: int, length: int) -> list[tuple[int, ...]]:
        """The runs of the first `length` tokens in `slot`."""
        beginning, held = list[tuple[int, ...]](), 0
        for run in self._slots.get(slot, ()):
            if held >= length:
                break
            beginning.append(run)
            held += len(run)
        assert held == length, f"slot {slot} has a run to token {held}; it is to hold {length}"
        return beginning

    def _logits(self, runs: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        seed = zlib.crc32(repr(runs).encode())
        logits = np.random.default_rng(seed).standard_normal(self.vocab_size, np.float32)
        if self._stop_token_ids and seed % self._mean_length == 0:
            logits[self._stop_token_ids[seed // self._mean_length % len(self._stop_token_ids)]] = logits.max() + 1
        return logits
