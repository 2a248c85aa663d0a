"""One decode step of a few sequences as one launch: compiles the kernel for a model's sizes, and queues it.

Reads and writes the same GPU memory as the graph, whose place it takes for such steps. Nothing is allocated after construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...device.device import Device
from .shape import WARPS, DecoderShape, DecoderWeights, Gpu, cut

SOURCES = ("machine.cuh", "stream.cuh", "attention.cuh", "step.cu")
KERNEL = "decode_step"


class Kernel(Protocol):
    """A compiled kernel."""

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Queue it. `cooperative`: all its blocks are on the GPU at once, or the launch fails."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepAddresses:
    """Where a step's inputs and its output lie in GPU memory; shapes for `batch` sequences."""

    input_ids: int  # int64 [batch]
    past_seqlens: int  # int32 [batch]
    block_table: int  # int32 [batch, most_blocks]
    most_blocks: int
    logits: int  # float32 [batch, vocabulary]


def supports(shape: DecoderShape, batch: int, gpu: Gpu) -> bool:
    """Whether a step of `batch` sequences of such a model can be computed by the fused kernel on that GPU."""
    return cut(shape, batch, gpu) is not None


def kernel_source(folder: Path = Path(__file__).parent) -> str:
    """The CUDA C++ source, in one piece."""
    return "\n".join((folder / name).read_text("utf-8") for name in SOURCES)


def define_options(constants: dict[str, int | float]) -> tuple[str, ...]:
    """Compiler options that give the source its constants."""
    floats = {name: f"{value!r}f" for name, value in constants.items() if isinstance(value, float)}
    return tuple(f"-D{name}={floats.get(name, value)}" for name, value in constants.items())


class FusedDecoder:
    """Queues decode steps of exactly `batch` sequences, one new token each."""

    def __init__(
        self,
        shape: DecoderShape,
        batch: int,
        gpu: Gpu,
        *,
        weights: DecoderWeights,
        addresses: StepAddresses,
        device: Device,
        compile_kernel: Callable[[str, str, tuple[str, ...]], Kernel],
        phases: int = 0x1F,
        attention: bool = True,
    ) -> None:
        """
        Args:
            compile_kernel: of a source, a kernel's name and compiler options, for the GPU of `device`.
            phases: of the kernel, as bits; less than all to measure one.
            attention: likewise.
        """
        work = cut(shape, batch, gpu, phases, attention)
        assert work is not None, f"asked for {shape} at {batch}, which `supports` refuses"
        assert len(weights.layers) == shape.layers, f"{len(weights.layers)} layers' weights for {shape.layers}"
        assert all(address % 16 == 0 for address in weights.table), "weights must begin at multiples of 16 bytes"
        table = device.host((len(weights.table),), np.uint64)
        table[:] = weights.table
        at = device.allocate(table.nbytes)
        device.upload(at, table)
        device.synchronize()
        scratch = [device.allocate(size) for size in work.scratch.values()]
        self._arguments = (
            np.uint64(at),
            np.uint64(addresses.input_ids),
            np.uint64(addresses.past_seqlens),
            np.uint64(addresses.block_table),
            np.int32(addresses.most_blocks),
            np.uint64(addresses.logits),
            *(np.uint64(address) for address in scratch),
        )
        self._blocks = gpu.multiprocessors
        self._shared_bytes = work.shared_bytes
        self._kernel = compile_kernel(kernel_source(), KERNEL, define_options(work.constants))

    def enqueue(self, stream: int) -> None:
        """Queue one step: reads what lies at the addresses then, appends to the caches, writes logits. May be recorded."""
        self._kernel.launch(
            stream, (self._blocks, 1, 1), (32 * WARPS, 1, 1), self._arguments, self._shared_bytes, cooperative=True
        )
