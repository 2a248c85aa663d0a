"""See `Feeder`: small kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .nvrtc import Kernel, Module
from .protocols import CacheGroup, Feed, Launchable, StepBuffers, StepShape

SOURCE = Path(__file__).with_name("kernels") / "feeding.cu"
_THREADS = 128
_COPIED = 16 << 10  # bytes that a block of threads copies at least
PAIRS = np.dtype([("sources", "i4", 128), ("targets", "i4", 128)])  # as the structure of the kernel's source has it
KERNELS = ("patch", "assemble", "remember", "copy_blocks")


def compile_kernels() -> dict[str, Kernel]:
    """The kernels, for the GPU that is there.

    Raises:
        NvrtcError: they cannot be compiled or loaded.
    """
    module = Module.compile(SOURCE.read_text("utf-8"), SOURCE.name)
    return {name: module.kernel(name) for name in KERNELS}


class KernelFeeder:
    """See `Feeder`."""

    def __init__(self, stream: int, kernels: Mapping[str, Launchable]) -> None:
        """
        Args:
            kernels: of `compile_kernels`.
        """
        self._stream = stream
        self._patch, self._assemble, self._remember = kernels["patch"], kernels["assemble"], kernels["remember"]
        self._copy_blocks = kernels["copy_blocks"]

    def patch(self, tables: int, cells: int, values: int, count: int) -> None:
        """See `Feeder.patch`."""
        arguments: tuple[np.generic, ...] = (*_addresses(tables, cells, values), np.int32(count))
        self._patch.launch(self._stream, _blocks(count), (_THREADS, 1, 1), arguments)

    def assemble(self, step: Feed, buffers: StepBuffers, shape: StepShape) -> None:
        """See `Feeder.assemble`."""
        arguments: tuple[np.generic, ...] = (
            np.uint64(step.tables),
            np.int32(step.table_width),
            *_addresses(step.latest, step.slots, step.fed, buffers.cu_seqlens, buffers.input_ids, buffers.block_table),
            np.int32(shape.width),
        )
        self._assemble.launch(self._stream, (shape.sequences, 1, 1), (32, 1, 1), arguments)

    def remember(self, latest: int, slots: int, rows: int, tokens: int, count: int) -> None:
        """See `Feeder.remember`."""
        arguments: tuple[np.generic, ...] = (*_addresses(latest, slots, rows, tokens), np.int32(count))
        self._remember.launch(self._stream, _blocks(count), (_THREADS, 1, 1), arguments)

    def copy_blocks(self, group: CacheGroup, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Feeder.copy_blocks`."""
        each, most = -(-group.block_bytes // _COPIED), PAIRS["sources"].shape[0]
        numbers = np.array([group.pitch, group.block_bytes], np.int64)
        for first in range(0, len(pairs), most):
            part = pairs[first : first + most]
            passed = np.zeros(1, PAIRS)
            passed["sources"][0, : len(part)], passed["targets"][0, : len(part)] = zip(*part, strict=True)
            arguments = (np.uint64(group.base), *numbers, np.int32(group.tensors), np.int32(each), passed[0])
            self._copy_blocks.launch(self._stream, (len(part) * group.tensors * each, 1, 1), (_THREADS, 1, 1), arguments)


def _addresses(*addresses: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(address) for address in addresses)


def _blocks(count: int) -> tuple[int, int, int]:
    return (-(-count // _THREADS), 1, 1)
