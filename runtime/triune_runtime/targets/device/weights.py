"""An engine's weights: from their files to the device, once, through a few pinned blocks that are read in parallel."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ManifestError, TriuneError
from .device import SharedDevice, aligned
from .stored import StoredWeight

LOG = logging.getLogger(__name__)
_BLOCK = 32 << 20  # bytes read at a time
_READERS = 4


class _Run(NamedTuple):
    """Bytes of a file, and where they go."""

    file: int  # descriptor
    offset: int
    length: int
    address: int


def load_weights_to(device: SharedDevice, weights: Sequence[StoredWeight], folder: Path) -> list[int]:
    """Copy `weights` to memory of the device: the address of each, a multiple of `ALIGNMENT`.

    Raises:
        ManifestError: a file is missing, or shorter than its weights.
        TriuneError: the device has not the memory.
    """
    began = time.monotonic()
    places: dict[tuple[str, int, int], int] = {}  # tied weights lie there once
    end = 0
    for weight in weights:
        if (weight.file, weight.offset, weight.length) not in places:
            places[weight.file, weight.offset, weight.length] = end
            end += aligned(weight.length)
    free, total = device.memory()
    if end > free:
        raise TriuneError(
            f"the weights take {end / 1e9:.1f} GB of GPU memory, but {free / 1e9:.1f} of {total / 1e9:.1f} GB are free",
            "free GPU memory (see nvidia-smi), or build with a precision whose weights are smaller",
        )
    base = device.allocate(max(end, 1))
    files: dict[str, int] = {}
    try:
        for name in dict.fromkeys(weight.file for weight in weights):
            files[name] = _opened(folder / name, max(w.offset + w.length for w in weights if w.file == name))
        runs = [_Run(files[name], at, length, base + place) for (name, at, length), place in places.items()]
        _copy(device, list(_cut(runs)))
    finally:
        for file in files.values():
            os.close(file)
    LOG.info("%.2f GB of weights were on the GPU after %.1f s", end / 1e9, time.monotonic() - began)
    return [base + places[weight.file, weight.offset, weight.length] for weight in weights]


def _opened(path: Path, least: int) -> int:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", "build the engine again") from error
    if (size := os.fstat(file).st_size) < least:
        os.close(file)
        raise ManifestError(f"{path} is damaged: it has {size:,} bytes, its weights end at {least:,}", "build the engine again")
    return file


def _cut(runs: Sequence[_Run]) -> Iterator[_Run]:
    """Runs of at most a block."""
    for run in runs:
        for at in range(0, run.length, _BLOCK):
            yield run._replace(offset=run.offset + at, address=run.address + at, length=min(_BLOCK, run.length - at))


def _copy(device: SharedDevice, runs: Sequence[_Run]) -> None:
    blocks = [device.host((_BLOCK,), np.uint8) for _ in range(_READERS)]
    events = [device.event() for _ in blocks]
    reading: list[Future[None] | None] = [None] * _READERS
    with ThreadPoolExecutor(_READERS) as readers:
        for number in range(len(runs) + _READERS):
            turn = number % _READERS
            if (future := reading[turn]) is not None:  # read meanwhile, and now the next in turn
                future.result()
                run = runs[number - _READERS]
                device.upload(run.address, blocks[turn][: run.length])
                events[turn].record()
                reading[turn] = None
            if number < len(runs):
                events[turn].wait()
                reading[turn] = readers.submit(_read, runs[number], blocks[turn])
    device.synchronize()


def _read(run: _Run, block: NDArray[np.uint8]) -> None:
    target, done = block.data, 0
    while done < run.length:
        count = os.preadv(run.file, [target[done : run.length]], run.offset + done)
        if not count:
            raise ManifestError("a file of weights became shorter while it was read", "build the engine again")
        done += count
