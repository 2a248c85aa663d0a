"""One decode step of a few sequences as one launch: compiles the kernel for a model's sizes, and queues it.

Reads and writes the same GPU memory as the graph, whose place it takes for such steps. Nothing is allocated after construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...device.device import Device
from ..protocols import Launchable
from .shape import WARPS, DecoderShape, DecoderWeights, Gpu, cut, table_length

SOURCES = ("machine.cuh", "stream.cuh", "blocks.cuh", "paged.cuh", "attention.cuh", "step.cu")
KERNEL = "decode_step"


@dataclass(frozen=True, kw_only=True)
class StepAddresses:
    """Where a step's inputs and its output lie in GPU memory; shapes for `batch` sequences."""

    input_ids: int  # int64 [batch]
    past_seqlens: int  # int32 [batch]
    block_table: int  # int32 [batch, most_blocks]
    most_blocks: int  # of a sequence, in the table
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
    """Queues decode steps of exactly `batch` sequences, one new token each. Weights and caches are bound before the first."""

    def __init__(
        self,
        shape: DecoderShape,
        batch: int,
        gpu: Gpu,
        *,
        device: Device,
        compile_kernel: Callable[[str, str, tuple[str, ...]], Launchable],
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
        self._device, self._layers = device, shape.layers
        self._host_table = device.host((table_length(shape),), np.uint64)
        self._table = device.allocate(self._host_table.nbytes)
        self._scratch = [np.uint64(device.allocate(size)) for size in work.scratch.values()]
        self._blocks, self._shared_bytes = gpu.multiprocessors, work.shared_bytes
        self._kernel = compile_kernel(kernel_source(), KERNEL, define_options(work.constants))

    def bind(self, weights: DecoderWeights) -> None:
        """Let weights and caches be these from now on, in recorded steps, too. Waits until what is queued is done."""
        assert len(weights.layers) == self._layers, f"{len(weights.layers)} layers' weights for {self._layers}"
        assert all(address % 16 == 0 for address in weights.table), "weights must begin at multiples of 16 bytes"
        self._device.synchronize()
        self._host_table[:] = weights.table
        self._device.upload(self._table, self._host_table)
        self._device.synchronize()

    def enqueue(self, stream: int, at: StepAddresses) -> None:
        """Queue one step: reads what lies at the addresses then, appends to the caches, writes logits. May be recorded."""
        addresses = [np.uint64(a) for a in (self._table, at.input_ids, at.past_seqlens, at.block_table)]
        arguments: tuple[np.generic, ...] = (*addresses, np.int32(at.most_blocks), np.uint64(at.logits), *self._scratch)
        block = (32 * WARPS, 1, 1)
        self._kernel.launch(stream, (self._blocks, 1, 1), block, arguments, self._shared_bytes, cooperative=True)
