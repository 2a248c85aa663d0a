"""What the runner of paged engines needs beside a device: what computes steps, what feeds them, and what chooses tokens.

Protocols and values only: no CUDA, no ONNX Runtime. All of them queue work on the device's one stream, in order. Addresses
are integers, of device memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...sampling.columns import Columns
from ..device.device import Device


class StreamDevice(Device, Protocol):
    """A device that says which stream it queues on."""

    @property
    def stream(self) -> int: ...


class Launchable(Protocol):
    """A compiled kernel: see `nvrtc.Kernel`."""

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None: ...


class CustomOps(Protocol):
    """What a graph needs that has other ops than ONNX Runtime's: see `ops`."""

    @property
    def graph(self) -> str:
        """Name of that graph's file."""
        ...

    def library(self) -> Path | None:
        """The library that registers the ops; None: they cannot be had. Asked for once all else is ready."""
        ...


class StepShape(NamedTuple):
    """How much a step has of what its graph's inputs count: see `plan`."""

    tokens: int
    sequences: int
    rows: int  # of logits
    width: int  # blocks of a row of the block table


class StepBuffers(NamedTuple):
    """Where a step's inputs and its output lie."""

    input_ids: int
    cu_seqlens: int
    past_seqlens: int
    block_table: int
    logits_at: int
    logits: int


class StepProgram(Protocol):
    """Computes logits from what lies in device memory when the step's turn comes."""

    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None:
        """Let the cache tensors, by name, be these from now on.

        Args:
            blocks: of each of them.
        """
        ...

    @property
    def replays(self) -> bool:
        """Whether it records steps that have a number, and replays them."""
        ...

    def enqueue(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None = None) -> None:
        """Queue a step.

        Args:
            bounds: int32 [3] in host memory: most new tokens of a sequence, most tokens of one, fewest of the longest. In a
                recording they count for every replay.
            number: of a step that comes again with the same arguments; of programs that replay. The third time it does
                is a replay.
        """
        ...

    def close(self) -> None:
        """Give back what it holds of the device; nothing is in flight."""
        ...


class Feeder(Protocol):
    """Fills a step's inputs from what the device alone knows, keeps what was chosen, and copies blocks.

    Can be recorded but for `patch` and `copy_blocks`.
    """

    def patch(self, tables: int, cells: int, values: int, count: int) -> None:
        """tables[cells[i]] = values[i] for `count` cells; all int32."""
        ...

    def assemble(self, step: Feed, buffers: StepBuffers, shape: StepShape) -> None:
        """For each sequence the row of its slot in the tables to the block table; if it is fed, its last token to input_ids."""
        ...

    def remember(self, latest: int, slots: int, rows: int, tokens: int, count: int) -> None:
        """latest[slots[i]] = tokens[rows[i]] for `count` sequences, but where rows[i] is negative."""
        ...

    def copy_blocks(self, group: CacheGroup, pairs: Sequence[tuple[int, int]]) -> None:
        """Of each pair the first block of each of its tensors to the second, all at once.

        No block is copied to that is in another pair, or copied from in its own.
        """
        ...


class CacheGroup(NamedTuple):
    """CacheGroup of the KV cache whose blocks are of one size."""

    base: int  # address of the first
    pitch: int  # bytes from one to the next; a multiple of 256
    tensors: int
    block_bytes: int


class Feed(NamedTuple):
    """What `Feeder.assemble` reads."""

    tables: int  # int32 [slots, table_width]
    table_width: int
    latest: int  # int64 [slots]: the token that was last chosen for each
    slots: int  # int32 [sequences]
    fed: int  # int32 [sequences]; 1: its last token is that of `latest`


class Chooser(Protocol):
    """Chooses tokens from logits on the device."""

    @property
    def chooses(self) -> frozenset[str]:
        """See `Runner.chooses`."""
        ...

    @property
    def tokens(self) -> int:
        """Address of the chosen tokens, int64 [rows]."""
        ...

    @property
    def logits(self) -> int:
        """Address of their logits, float32 [rows]."""
        ...

    def prepare(self, columns: Columns | None, rows: int) -> None:
        """Queue the upload of how tokens of the next `enqueue` are chosen. Never recorded.

        The upload that the call before the last one queued is done by now.

        Args:
            columns: of the first rows; None, and for rows behind them: the best token.
        """
        ...

    def enqueue(self, logits: int, rows: int) -> None:
        """Queue the choice from logits float32 [rows, vocab_size]."""
        ...
