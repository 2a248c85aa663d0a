"""What says which tokens a run of a slot runner computes: its inputs but for the cache, on the host and on the device.

Two kinds of engines. One takes runs of any size within its profiles, numbers of int64, and `starts`, from where on a
sequence's tokens are written. The other (`SlotPlan.fixed_sizes`) takes one size for each profile, numbers of int32, and writes
each token in the row of its position: what a run lacks is filled up with tokens at the slot's last position, which is no
sequence's. Its runs of one token of each sequence have `sequences`, which slot of a batch is whose, and no `logit_positions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .device import Device, aligned
from .plan import SlotPlan

Bindings = dict[str, tuple[int, tuple[int, ...]]]  # name -> address and shape


class SlotInputs:
    """One pinned block of numbers, its twin on the device, and views of its parts."""

    def __init__(self, device: Device, plan: SlotPlan, *, sequences: int, tokens: int, logits: int) -> None:
        """
        Args:
            sequences, tokens, logits: of a run, at most.
        """
        self._device, self._last, self._fixed = device, plan.capacity - 1, plan.fixed_sizes
        self.dtype: type[np.generic] = np.int32 if plan.fixed_sizes else np.int64
        width = np.dtype(self.dtype).itemsize
        sizes = {"input_ids": sequences * tokens, "positions": sequences * tokens}
        sizes |= {"logit_positions": logits, "sequences" if plan.fixed_sizes else "starts": sequences}
        offsets, end = {}, 0
        for name, size in sizes.items():
            offsets[name] = end
            end += aligned(width * size)
        self._block = device.host((end // width,), self.dtype)
        base = device.allocate(end)
        self._addresses = {name: base + offset for name, offset in offsets.items()}
        self._parts: dict[str, NDArray[Any]] = {
            name: self._block[offset // width : offset // width + sizes[name]] for name, offset in offsets.items()
        }
        if "sequences" in self._parts:
            self._parts["sequences"][:] = np.arange(sequences)

    def one(self, tokens: Sequence[int], start: int, logits: Sequence[int], *, size: int, rows: int) -> Bindings:
        """A run of `tokens` of one sequence, which has `start` others; `logits` says which of them get logits.

        Args:
            size, rows: of the run: as many tokens and logits, or more, where sizes are fixed.
        """
        n, m, parts = len(tokens), len(logits), self._parts
        parts["input_ids"][:n], parts["input_ids"][n:size] = tokens, 0
        parts["positions"][:n], parts["positions"][n:size] = np.arange(start, start + n), self._last
        if "starts" in parts:
            parts["starts"][0] = start
        parts["logit_positions"][:m], parts["logit_positions"][m:rows] = logits, logits[-1]
        return self._bound(1, size, rows)

    def many(self, tokens: Sequence[int], starts: Sequence[int], *, size: int) -> None:
        """A run of one token of each sequence; `size` sequences are run."""
        n, parts = len(tokens), self._parts
        parts["input_ids"][:n], parts["input_ids"][n:size] = tokens, 0
        parts["positions"][:n], parts["positions"][n:size] = starts, self._last
        if "starts" in parts:
            parts["starts"][:n] = starts

    def bindings(self, sequences: int) -> Bindings:
        """Of a run of one token of each of `sequences`."""
        return self._bound(sequences, 1, 1)

    def upload(self) -> None:
        """Queue the copy to the device."""
        self._device.upload(min(self._addresses.values()), self._block)

    def _bound(self, batch: int, tokens: int, logits: int) -> Bindings:
        shapes = {"input_ids": (batch, tokens), "positions": (batch, tokens), "starts": (batch,), "sequences": (batch,)}
        shapes["logit_positions"] = (logits,)
        if self._fixed:
            del shapes["logit_positions" if tokens == 1 else "sequences"]
        return {name: (address, shapes[name]) for name, address in self._addresses.items() if name in shapes}
