"""Numbers on their way between the host and the device while steps are in flight: none is overwritten before its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..device.device import Event, SharedDevice, aligned

_BLOCKS = 4  # a step may have two parts, and two steps are in flight


class Staging:
    """Arrays that go to the device together: pinned blocks in turn, and one block there, since steps run in order."""

    def __init__(self, device: SharedDevice, fields: Mapping[str, tuple[type[np.generic], int]]) -> None:
        """
        Args:
            fields: name -> type and how many numbers.
        """
        self._device = device
        offsets, end = {}, 0
        for name, (dtype, count) in fields.items():
            offsets[name] = end
            end += aligned(np.dtype(dtype).itemsize * count)
        base = device.allocate(end)
        self._base = base
        self.addresses = {name: base + offset for name, offset in offsets.items()}
        self._blocks: list[tuple[NDArray[np.uint8], dict[str, NDArray[Any]], Event]] = []
        for _ in range(_BLOCKS):
            block = device.host((end,), np.uint8)
            views = {
                name: block[offsets[name] : offsets[name] + np.dtype(dtype).itemsize * count].view(dtype)
                for name, (dtype, count) in fields.items()
            }
            self._blocks.append((block, views, device.event()))
        self._turn = 0

    def take(self) -> dict[str, NDArray[Any]]:
        """Arrays to fill before the next `send`. Waits for the step that used them last, which is long over as a rule."""
        _, views, event = self._blocks[self._turn]
        event.wait()
        return views

    def send(self) -> None:
        """Queue the copy of what `take` gave."""
        block, _, event = self._blocks[self._turn]
        self._device.upload(self._base, block)
        event.record()
        self._turn = (self._turn + 1) % len(self._blocks)


class Move(NamedTuple):
    """target[places] = source[own], once `source`, in pinned memory, is filled."""

    target: NDArray[Any]
    places: slice | NDArray[np.int64]
    source: NDArray[Any]
    own: slice | NDArray[np.int64] = slice(None)


class Landing:
    """Results that are copied into pinned memory, and belong elsewhere once they are there."""

    def __init__(self, event: Event, moves: Sequence[Move]) -> None:
        """
        Args:
            event: recorded behind the copies.
        """
        self._event: Event | None = event
        self._moves = moves

    def land(self) -> None:
        """Wait for the copies and put them where they belong; once."""
        if self._event is None:
            return
        self._event.wait()
        for target, places, source, own in self._moves:
            target[places] = source[own]
        self._event, self._moves = None, ()


class Outlet:
    """Pinned blocks for results, in turn."""

    def __init__(
        self, device: SharedDevice, fields: Mapping[str, tuple[type[np.generic], tuple[int, ...]]], blocks: int = _BLOCKS
    ) -> None:
        """
        Args:
            fields: name -> type and shape.
        """
        self._blocks = [{name: device.host(shape, dtype) for name, (dtype, shape) in fields.items()} for _ in range(blocks)]
        self._events = [device.event() for _ in range(blocks)]
        self._landings: list[Landing | None] = [None] * blocks
        self._turn = 0

    def take(self) -> dict[str, NDArray[Any]]:
        """Arrays to copy results into before the next `close`. What came into them last lands first."""
        if (landing := self._landings[self._turn]) is not None:
            landing.land()
        return self._blocks[self._turn]

    def close(self, moves: Sequence[Move]) -> Landing:
        """The landing of what was queued into the arrays that `take` gave."""
        event = self._events[self._turn]
        event.record()
        landing = self._landings[self._turn] = Landing(event, moves)
        self._turn = (self._turn + 1) % len(self._blocks)
        return landing
