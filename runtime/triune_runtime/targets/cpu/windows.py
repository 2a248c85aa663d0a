"""The buffers of layers with a window: how to take drafted tokens back, and copies of a sequence's beginning. NumPy only.

Which positions they hold is the attention op's own rule (ONNX Runtime's GroupQueryAttention, `sliding_window_cache`), see
`kv.windows`: it depends on the number of tokens alone, so neither chunks nor batch mates change what a sequence finds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kv.windows import Window

Buffer = NDArray[np.generic]  # [slots, heads, positions, dim]


@dataclass(frozen=True, slots=True)
class _Dropped:
    """Rows that a run with drafts drops and that may be needed again: positions from `first` on, of each buffer."""

    first: int
    rows: tuple[NDArray[np.generic], ...]  # [heads, count, dim]


class WindowedBuffers:
    """Buffers of one window and one capacity. Follows how many tokens each slot holds."""

    def __init__(self, window: int, buffers: Sequence[Buffer]) -> None:
        self._buffers = tuple(buffers)
        slots, _, capacity, _ = self._buffers[0].shape
        self._window = Window(window, capacity)
        self._held = [0] * slots
        self._dropped: dict[int, _Dropped] = {}

    def first(self, total: int) -> int:
        """The oldest position in the buffer of a sequence of `total` tokens."""
        return self._window.first(total)

    def prepare(self, slot: int, start: int, tokens: int, drafts: int) -> None:
        """Make the buffer that of a sequence of `start` tokens, of which `tokens` are about to be run.

        Up to `drafts` of these may be taken back by a later `start`; with drafts, a run is no longer than the window.
        """
        self._rewind(slot, start)
        end = start + tokens
        self._held[slot] = end
        if self.first(end) > self.first(end - drafts):
            window = self._window.window
            assert tokens <= window, f"a run of {tokens} tokens, {drafts} of them drafts, for a window of {window}"
            oldest = self.first(start)
            self._dropped[slot] = _Dropped(oldest, tuple(b[slot, :, : self.first(end) - oldest].copy() for b in self._buffers))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of the sequence in slot `source` to slot `target`."""
        assert length <= self._held[source], f"slot {source} holds {self._held[source]} tokens, not {length}"
        if not self._window.keeps(self._held[source], length):
            self._rewind(source, length)  # what is beyond were drafts
        oldest, begin = self.first(self._held[source]), self.first(length)
        since = max(oldest, begin)
        self._dropped.pop(target, None)
        self._held[target] = length
        for buffer in self._buffers:
            buffer[target, :, since - begin : length - begin] = buffer[source, :, since - oldest : length - oldest]

    def _rewind(self, slot: int, length: int) -> None:
        """Forget the tokens from `length` on."""
        held, dropped = self._held[slot], self._dropped.pop(slot, None)
        self._held[slot] = length
        now, then = self.first(held), self.first(length)
        if length == 0 or now == then:
            return
        assert now > then, f"slot {slot} holds {held} tokens, not {length}"
        needed = self._window.needed(length)
        assert needed >= now or (dropped is not None and dropped.first <= needed), (
            f"slot {slot} has dropped positions below {now}; back at {length} tokens, those from {needed} are needed"
        )
        for i, buffer in enumerate(self._buffers):
            kept = buffer[slot, :, : length - now].copy()
            buffer[slot, :, now - then : length - then] = kept
            if dropped is not None:
                rows = dropped.rows[i][:, then - dropped.first :]
                buffer[slot, :, : min(rows.shape[1], now - then)] = rows[:, : now - then]
