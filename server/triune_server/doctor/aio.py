"""Many reads of a file at a time, past the page cache, by the kernel's own asynchronous reads: no thread, no package, no root.

Calls of threads would measure Python: some 100,000 a second. Here one call hands over a whole batch.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SETUP, _DESTROY, _GETEVENTS, _SUBMIT = 206, 207, 208, 209  # system calls of x86-64
_PREAD = 0
_EVENT_BYTES = 32
# struct iocb
_IOCB = np.dtype(
    [("data", "<u8"), ("key", "<u4"), ("flags", "<u4"), ("opcode", "<u2"), ("priority", "<i2"), ("file", "<u4"),
     ("buffer", "<u8"), ("size", "<u8"), ("offset", "<i8"), ("reserved", "<u8"), ("more_flags", "<u4"), ("event_file", "<u4")]
)  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """What was read in some time."""

    reads: int
    bytes: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Reads."""
        return self.reads / self.seconds

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds


def measure_reads(path: Path, size: int, seconds: float, *, depth: int, ordered: bool) -> Rate:
    """Read `path` in pieces of `size` bytes for some time, `depth` of them at once.

    Args:
        size: a multiple of 4096.
        ordered: one after the other; else at random.

    Raises:
        OSError: the file system reads nothing past the page cache, or the kernel or a container forbids such reads.
    """
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, "reads are measured on x86-64")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        return _measure(descriptor, size, seconds, depth, ordered)
    finally:
        os.close(descriptor)


def _measure(descriptor: int, size: int, seconds: float, depth: int, ordered: bool) -> Rate:
    pieces = os.fstat(descriptor).st_size // size
    if not pieces:
        raise OSError(errno.EINVAL, f"the file is smaller than {size} bytes")
    chance, place, reads = np.random.default_rng(), 0, 0
    batches = [_Batch(descriptor, size, max(1, depth // 2)) for _ in range(2)]  # one is read while the other is handed over
    try:
        began = time.perf_counter()
        for batch in batches:
            batch.submit(_offsets(chance, pieces, place, batch.count, ordered) * size)
            place += batch.count
        while (now := time.perf_counter()) - began < seconds:
            for batch in batches:
                reads += batch.wait()
                batch.submit(_offsets(chance, pieces, place, batch.count, ordered) * size)
                place += batch.count
        return Rate(reads, reads * size, now - began)
    finally:
        for batch in batches:
            batch.close()


def _offsets(chance: np.random.Generator, pieces: int, place: int, count: int, ordered: bool) -> NDArray[np.int64]:
    return np.arange(place, place + count, dtype=np.int64) % pieces if ordered else chance.integers(0, pieces, count)


class _Batch:
    """Reads that are handed over and waited for together."""

    def __init__(self, descriptor: int, size: int, count: int) -> None:
        self.count, self._busy = count, False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._context = ctypes.c_ulong()
        self._call(_SETUP, count, ctypes.byref(self._context))
        self._memory = mmap.mmap(-1, size * count)  # pages: aligned as such reads must be
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._blocks = np.zeros(count, _IOCB)
        self._blocks["opcode"], self._blocks["file"], self._blocks["size"] = _PREAD, descriptor, size
        self._blocks["buffer"] = base + np.arange(count, dtype=np.uint64) * np.uint64(size)
        self._pointers = self._blocks.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(_IOCB.itemsize)
        self._events = np.zeros(count * _EVENT_BYTES // 8, np.int64).reshape(count, -1)

    def submit(self, offsets: NDArray[np.int64]) -> None:
        """Begin to read there."""
        self._blocks["offset"] = offsets
        done = 0
        while done < self.count:
            done += self._call(
                _SUBMIT, self._context, self.count - done, ctypes.c_void_p(int(self._pointers.ctypes.data) + 8 * done)
            )
        self._busy = True

    def wait(self) -> int:
        """Until all are read; how many those are."""
        done = 0
        while done < self.count:
            left = self.count - done
            done += self._call(_GETEVENTS, self._context, left, left, ctypes.c_void_p(self._events[done:].ctypes.data), None)
        self._busy = False
        if (failed := int(self._events[:, 2].min())) < 0:
            raise OSError(-failed, os.strerror(-failed))
        return self.count

    def close(self) -> None:
        """Wait for what is under way, which writes into memory, and give all back."""
        self._libc.syscall(_DESTROY, self._context)

    def _call(self, number: int, *arguments: object) -> int:
        done = int(self._libc.syscall(number, *arguments))
        if done < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return done
