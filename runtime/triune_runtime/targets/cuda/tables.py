"""Which blocks each slot has, on the host and on the device: of a change only what has changed goes there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...runner import Table
from ..device.device import SharedDevice
from .protocols import Feeder
from .staging import Staging

_CELLS = 4096  # changes that go to the device at once


class Tables:
    """Rows [slots + 1, width] of block numbers. The last row, of no sequence, is the scratch block over and over."""

    def __init__(self, device: SharedDevice, feeder: Feeder, *, slots: int, width: int) -> None:
        self._feeder, self._slots, self.width = feeder, slots, width
        self._rows: NDArray[np.int32] = np.zeros((slots + 1, width), np.int32)
        self._there = self._rows.copy()  # what the device has, or will have by what is queued
        self._dirty: dict[int, None] = {}  # slots, in the order of their changes
        self.address = device.allocate(self._rows.nbytes)
        self._staging = Staging(device, {"cells": (np.int32, _CELLS), "values": (np.int32, _CELLS)})

    @property
    def scratch_row(self) -> int:
        return self._slots

    def begin(self, scratch: int) -> None:
        """Let the last row be block `scratch`, and give each slot a stretch of its own of the blocks before it.

        As far as they go: it is for whoever runs a few sequences and keeps no books.
        """
        for slot in range(min(self._slots, scratch // self.width)):
            self._rows[slot] = np.arange(slot * self.width, (slot + 1) * self.width)
        self._rows[self._slots] = scratch
        self._dirty |= dict.fromkeys(range(self._slots + 1))

    def set(self, order: Table) -> None:
        """Carry out an order, at the next `flush`."""
        assert len(order.blocks) <= self.width, f"slot {order.slot} has {len(order.blocks)} blocks, at most {self.width}"
        self._rows[order.slot, : len(order.blocks)] = order.blocks
        self._dirty[order.slot] = None

    def flush(self) -> None:
        """Queue the changes."""
        if not self._dirty:
            return
        slots = np.fromiter(self._dirty, np.int64)
        self._dirty.clear()
        at, columns = np.nonzero(self._rows[slots] != self._there[slots])
        rows = slots[at]
        cells = (rows * self.width + columns).astype(np.int32)
        values = self._rows[rows, columns]
        self._there[rows, columns] = values
        for first in range(0, len(cells), _CELLS):
            count = min(_CELLS, len(cells) - first)
            block = self._staging.take()
            block["cells"][:count] = cells[first : first + count]
            block["values"][:count] = values[first : first + count]
            self._staging.send()
            addresses = self._staging.addresses
            self._feeder.patch(self.address, addresses["cells"], addresses["values"], count)
