"""Which blocks each slot has, on the host and on the device: of a change only what has changed goes there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import TriuneError
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
        self.told = set[int]()  # slots that a table was told for
        self._lent: dict[int, int] = {}  # of the others: how many blocks each has
        self._unlent: list[int] = []
        self.address = device.allocate(self._rows.nbytes)
        self._staging = Staging(device, {"cells": (np.int32, _CELLS), "values": (np.int32, _CELLS)})

    @property
    def scratch_row(self) -> int:
        return self._slots

    def begin(self, scratch: int) -> None:
        """Let the last row be block `scratch`, and lend the blocks before it to whoever keeps no books."""
        self._unlent, self._lent = list(reversed(range(scratch))), {}
        self._rows[self._slots] = scratch
        self._dirty[self._slots] = None

    def lend(self, slot: int, start: int, blocks: int) -> None:
        """Let a slot that no table was told for have `blocks` blocks; from the beginning again where `start` is 0.

        Raises:
            TriuneError: there are not so many.
        """
        assert slot not in self.told, f"slot {slot} was told its blocks"
        has = self._lent.get(slot, 0)
        if not start:
            self._unlent += self._rows[slot, blocks:has].tolist()
            has = min(has, blocks)
        if blocks - has > len(self._unlent):
            raise TriuneError(
                f"slot {slot} needs {blocks - has} further blocks of KV memory, and {len(self._unlent)} are left",
                "free GPU memory (see nvidia-smi), or build with a smaller --max-length or --max-sequences",
            )
        for number in range(has, blocks):
            self._rows[slot, number] = self._unlent.pop()
        self._lent[slot] = max(has, blocks)
        self._dirty[slot] = None

    def set(self, order: Table) -> None:
        """Carry out an order, at the next `flush`."""
        assert len(order.blocks) <= self.width, f"slot {order.slot} has {len(order.blocks)} blocks, at most {self.width}"
        self.told.add(order.slot)
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
