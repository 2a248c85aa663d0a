"""Steps of one token of each sequence: batches padded to few sizes, each of which is one recorded launch."""

from __future__ import annotations

import logging
import math

import numpy as np

from ...errors import TriuneError
from ...sampling.columns import Columns
from ..device.device import Replay
from .parts import Batch
from .protocols import Feed, StepBuffers, StepShape
from .staging import Staging
from .steps import StepTools

LOG = logging.getLogger(__name__)
_EACH = (1, 2, 4, 8, 16)  # batch sizes; from there on each power of two, and one half way to the next
_SHORT = 4096  # tokens: sequences up to here, and up to every fourth multiple on, have graphs of their own
_TURNS = 3  # runs of a step until a program that records by itself replays it


def batch_buckets(most: int) -> tuple[int, ...]:
    """The batch sizes that decodes are padded to."""
    sizes = [size for size in _EACH if size < most]
    size = 2 * _EACH[-1]
    while size < most:
        sizes += [step for step in (size, size + size // 2) if step < most]
        size *= 2
    return (*sizes, most)


def width_buckets(width: int, block_tokens: int) -> tuple[int, ...]:
    """The widths of the block table that decodes run with: bounds of a graph hold for all its replays, and cost time."""
    widths, size = list[int](), math.ceil(_SHORT / block_tokens)
    while size < width:
        widths.append(size)
        size *= 4
    return (*widths, width)


class Decodes:
    """See the module. Padded rows are of no sequence: they read and write the scratch block."""

    def __init__(self, tools: StepTools) -> None:
        self._tools = tools
        most, tables = tools.sizes.sequences, tools.tables
        self.batches = batch_buckets(most)
        self._widths = width_buckets(tables.width, tools.block_tokens)
        self._staging = Staging(
            tools.device,
            {"input_ids": (np.int64, most), "past": (np.int32, most), "slots": (np.int32, most), "fed": (np.int32, most)},
        )
        counts = Staging(tools.device, {"ends": (np.int32, most + 1), "rows": (np.int64, most)})
        block = counts.take()
        block["ends"][:], block["rows"][:] = np.arange(most + 1), np.arange(most)
        counts.send()
        at = self._staging.addresses
        self._ends = counts.addresses["ends"]
        self._feed = Feed(tables.address, tables.width, tools.latest, at["slots"], at["fed"])
        self._buffers = StepBuffers(
            input_ids=at["input_ids"],
            cu_seqlens=self._ends,
            past_seqlens=at["past"],
            block_table=tools.device.allocate(4 * most * tables.width),
            logits_at=counts.addresses["rows"],
            logits=tools.logits,
        )
        self._replays: dict[tuple[int, int], Replay] = {}

    def warm_up(self, *, record: bool) -> None:
        """Run every shape, and record it if asked to. What a recording must not contain is settled by the run before it."""
        failed = set[str]()
        for width in self._widths:
            for batch in reversed(self.batches):
                self._stage(None, batch)
                self._tools.prepare(None, batch)
                self._queue(batch, width)
                self._tools.device.synchronize()
                if record:
                    self._replays[batch, width] = self._recorded(batch, width, failed)
                    self._tools.device.synchronize()
        if failed:
            LOG.warning("decodes: %s", "; ".join(sorted(failed)))
        elif record:
            LOG.info("decodes have a CUDA graph for batches of %s", ", ".join(map(str, self.batches)))

    def queue(self, decodes: Batch, columns: Columns | None) -> None:
        """Queue a step; its rows lie in the order of `decodes`.

        Args:
            columns: of the decodes.
        """
        batch = next(size for size in self.batches if size >= len(decodes))
        longest = int(decodes.starts.max()) + 1
        width = next(size for size in self._widths if size * self._tools.block_tokens >= longest)
        self._stage(decodes, batch)
        self._tools.prepare(columns, batch)
        if (replay := self._replays.get((batch, width))) is not None:
            replay()
        else:
            self._queue(batch, width)

    def _stage(self, decodes: Batch | None, batch: int) -> None:
        count, block = 0 if decodes is None else len(decodes), self._staging.take()
        if decodes is not None:
            block["input_ids"][:count], block["past"][:count] = decodes.tokens, decodes.starts
            block["slots"][:count], block["fed"][:count] = decodes.slots, decodes.fed
        block["slots"][count:batch] = self._tools.tables.scratch_row
        for name in ("input_ids", "past", "fed"):
            block[name][count:batch] = 0
        self._staging.send()

    def _queue(self, batch: int, width: int, number: int | None = None) -> None:
        tools = self._tools
        shape = StepShape(tokens=batch, sequences=batch, rows=batch, width=width)
        place = self._widths.index(width)
        shorter = self._widths[place - 1] * tools.block_tokens if place else 0
        bounds = np.array([1, width * tools.block_tokens, shorter + 1], np.int32)
        tools.feeder.assemble(self._feed, self._buffers, shape)
        tools.program.enqueue(self._buffers, shape, bounds, number)
        tools.choose(batch, self._feed.slots, self._ends, batch)

    def _recorded(self, batch: int, width: int, failed: set[str]) -> Replay:
        """One launch of a step, or the best there is instead; adds to `failed` what that is, and why."""

        def queue() -> None:
            self._queue(batch, width)

        if (replay := self._tools.device.capture(queue)) is not None:
            replay()
            return replay
        if not self._tools.program.replays:
            failed.add("no CUDA graphs, since a step cannot be recorded: each kernel is queued by itself")
            return queue
        number = 1 + self._widths.index(width) * len(self.batches) + self.batches.index(batch)

        def numbered() -> None:
            self._queue(batch, width, number)

        try:
            for _ in range(_TURNS):
                numbered()
        except TriuneError as error:
            failed.add(f"no CUDA graphs: each kernel is queued by itself, since {error}")
            return queue
        failed.add("CUDA graphs of ONNX Runtime, without the choice of tokens, since a whole step cannot be recorded")
        return numbered
