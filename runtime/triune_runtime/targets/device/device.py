"""What a slot runner needs of a device and of an engine on it. Protocols only: no CUDA, no TensorRT.

Work is queued on one stream and done in order, later than the call: `synchronize` waits for it. Addresses are integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 256  # bytes; TensorRT asks it of every tensor's address
Replay = Callable[[], None]


class Event(Protocol):
    """A point of what is queued."""

    def record(self) -> None:
        """Queue the point: what `wait` waits for from now on."""
        ...

    def wait(self) -> None:
        """Wait until everything is done that was queued before the point; none recorded: no wait.

        Raises:
            DeviceLost: something that was queued failed.
        """
        ...


class Device(Protocol):
    """Memory, copies and recorded work."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of zeros, a multiple of `ALIGNMENT`; they live as long as the device."""
        ...

    def host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """An array of zeros in host memory that copies can read and write directly; it lives as long as the device."""
        ...

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Queue a copy of an array of `host`, or a contiguous part of one, which must stay as it is until it is done."""
        ...

    def download(self, target: NDArray[Any], source: int) -> None:
        """Queue a copy into an array of `host`, or a contiguous part of one."""
        ...

    def copy_rows(self, target: int, source: int, *, rows: int, width: int, pitch: int) -> None:
        """Queue a copy of the first `width` bytes of each of `rows` rows that begin every `pitch` bytes."""
        ...

    def capture(self, queue: Callable[[], None]) -> Replay | None:
        """Record what `queue` queues, without doing it; the result queues the same again, in one call.

        None where it cannot be recorded: nothing of it has been done then.
        """
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        ...


class SharedDevice(Device, Protocol):
    """A device whose results are waited for step by step, while later ones are queued."""

    def event(self) -> Event: ...

    def memory(self) -> tuple[int, int]:
        """Bytes that nobody holds, and bytes in all."""
        ...

    def check(self) -> None:
        """Make sure that the device still answers, without waiting for it.

        Raises:
            DeviceLost: it does not.
        """
        ...

    def close(self) -> None:
        """Free all memory and recordings. Nothing of them may be used afterwards, nor be in use."""
        ...


class Program(Protocol):
    """An engine under one optimization profile, with bindings of its own."""

    def bind_input(self, name: str, address: int, shape: tuple[int, ...]) -> None: ...

    def bind_output(self, name: str, address: int) -> None: ...

    def enqueue(self) -> None:
        """Queue a run with what is bound now."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether a run can be recorded by `Device.capture`; asked after a first run."""
        ...


class LoadedEngine(Protocol):
    """An engine in a device's memory."""

    def program(self, profile: int) -> Program:
        """New bindings under that optimization profile."""
        ...


def aligned(size: int) -> int:
    """`size` rounded up to a multiple of `ALIGNMENT`."""
    return size + -size % ALIGNMENT
