"""Runs engines whose KV cache lies in blocks, on a device. Knows steps and blocks; no CUDA, no ONNX Runtime.

Up to two launches are in flight: the tokens that one chooses are fed to the next on the device, and what comes back to the
host waits for its own launch only. All memory is taken before the first launch.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import TriuneError
from ...manifest import EngineManifest, Limits
from ...runner import CopyBlock, Flight, Order, Rows, Table, Want, Work
from ...sampling.columns import Columns
from ..device.device import SharedDevice
from .decodes import Decodes
from .parts import Piece, Sizes, split
from .plan import CudaPlan
from .pool import BlockPool, blocks_that_fit
from .protocols import Chooser, Feeder, StepProgram
from .results import Landed, Results
from .staging import Landing
from .steps import Packed, StepTools
from .tables import Tables
from .warming import WarmStep, largest_step, warm_steps

LOG = logging.getLogger(__name__)
_LEAST_ROWS = 32  # of logits that a step has room for: of few sequences with drafts, or of prompts whose tokens are scored


def step_sizes(limits: Limits) -> Sizes:
    """The most that one step has."""
    sequences = limits.max_sequences
    return Sizes(tokens=max(limits.step_tokens, sequences), sequences=sequences, rows=max(sequences, _LEAST_ROWS))


class PagedRunner:
    """See `Runner`."""

    mtp = None
    scores = True

    def __init__(
        self,
        manifest: EngineManifest,
        device: SharedDevice,
        program: StepProgram,
        feeder: Feeder,
        chooser: Chooser | None,
        *,
        blocks: int | None = None,
        record: bool = True,
    ) -> None:
        """
        Args:
            program: of the engine, loaded.
            chooser: for `step_sizes` rows; None: the host chooses, and no launch is planned before the last one's tokens.
            blocks: of KV memory; None: as many as fit into memory.
            record: decode by recorded launches; without, every kernel is queued by itself.

        Raises:
            TriuneError: the device has not the memory for a step, or for one sequence of the greatest length.
        """
        plan, limits = CudaPlan.of(manifest), manifest.limits
        self.vocab_size = manifest.vocab_size
        self.depth = 1 if chooser is not None else 0
        self.chooses = chooser.chooses if chooser is not None else frozenset[str]()
        self._manifest, self._device, self._program, self._record = manifest, device, program, record
        self._sizes, self._block_tokens = step_sizes(limits), plan.block_tokens
        sizes = self._sizes
        self._tables = Tables(
            device, feeder, slots=limits.max_sequences, width=math.ceil(limits.max_length / plan.block_tokens)
        )
        tools = StepTools(
            device=device,
            program=program,
            feeder=feeder,
            chooser=chooser,
            tables=self._tables,
            sizes=sizes,
            block_tokens=plan.block_tokens,
            latest=device.allocate(8 * (limits.max_sequences + 1)),
            logits=device.allocate(4 * sizes.rows * manifest.vocab_size),
            turns=itertools.cycle((device.event(), device.event())),
        )
        self._chooser, self._logits = chooser, tools.logits
        self._decodes, self._packed = Decodes(tools), Packed(tools)
        self._results = Results(device, rows=sizes.rows, vocab_size=self.vocab_size, chooses=chooser is not None)
        self._use(BlockPool(device, feeder, manifest.cache, plan.block_tokens, 0))
        try:
            self._run_scratch(largest_step(sizes, limits.max_length))
        except TriuneError as error:
            raise TriuneError(
                f"a step of {sizes.tokens:,} tokens of {sizes.sequences} sequences cannot be run: {error}",
                "free GPU memory (see nvidia-smi), or build with a smaller --prefill-chunk or --max-sequences",
            ) from error
        self.blocks = blocks or blocks_that_fit(manifest, plan.block_tokens, *device.memory())
        self._use(BlockPool(device, feeder, manifest.cache, plan.block_tokens, self.blocks))

    def warm_up(self) -> None:
        """See `Runner.warm_up`."""
        began = time.monotonic()
        self._device.check()  # the first call of a thread makes the device its own
        for step in warm_steps(self._sizes, self._manifest.limits.max_length):
            self._run_scratch(step)
        self._pool.copy([(self._pool.scratch, 0)])  # nobody has a block yet; what a kernel needs is loaded when it first runs
        self._decodes.warm_up(record=self._record)
        free, total = self.memory()
        LOG.info(
            "warmed up in %.1f s; %.1f of %.1f GB of GPU memory are free", time.monotonic() - began, free / 1e9, total / 1e9
        )

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = (), columns: Columns | None = None) -> Flight:
        """See `Runner.launch`.

        Raises:
            DeviceLost: the device does not answer any more.
        """
        try:
            return self._launch(work, orders, columns)
        except Exception:
            self._device.check()
            raise

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """See `Runner.run_rows`."""
        return self.launch(work).collect()

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Runner.run`."""
        return self.run_rows(work).logits

    def memory(self) -> tuple[int, int]:
        """Bytes of the device that nobody holds, and bytes in all."""
        return self._device.memory()

    def close(self) -> None:
        """See `Runner.close`."""
        self._device.synchronize()
        self._program.close()
        self._device.close()

    def _launch(self, work: Sequence[Work], orders: Sequence[Order], columns: Columns | None) -> Flight:
        copies = list[tuple[int, int]]()
        for order in orders:
            if isinstance(order, Table):
                self._tables.set(order)
            else:
                assert isinstance(order, CopyBlock), f"{order} is for memory in slots; this runner's lies in blocks"
                copies.append((order.source, order.target))
        self._pool.copy(copies)
        if not self._tables.told.issuperset([item.slot for item in work]):
            self._lend(work)
        self._tables.flush()
        parts = split(work, self._sizes)
        made, landings = self._results.empty(parts.rows, logits=parts.logits), list[Landing]()
        for batch in parts.batches:
            self._decodes.queue(batch, _columns_of(batch.items, columns))
            landings += self._results.fetch_batch(made, batch, self._chooser, self._logits)
        for pieces in parts.packs:
            items = np.array([piece.item for piece in pieces if piece.rows], np.int64)
            rows = self._packed.queue(pieces, _columns_of(items, columns))
            landings += self._results.fetch(made, pieces, rows, self._chooser, self._logits)
        return Landed(made, landings)

    def _lend(self, work: Sequence[Work]) -> None:
        """Give blocks to slots that no table was told for."""
        for item in work:
            if item.slot not in self._tables.told:
                self._tables.lend(item.slot, item.start, -(-(item.start + len(item.tokens)) // self._block_tokens))

    def _use(self, pool: BlockPool) -> None:
        """Let the KV cache lie in `pool`."""
        self._pool = pool
        self._program.bind_cache(pool.addresses, pool.count)
        self._tables.begin(pool.scratch)
        self._tables.flush()

    def _run_scratch(self, step: WarmStep) -> None:
        """Run it in the scratch block, and wait until it is done."""
        slot, longest, left, pieces = self._tables.scratch_row, self._manifest.limits.max_length, step.rows, list[Piece]()
        for number, chunk in enumerate(step.chunks):
            rows = min(chunk, left)
            start = min(step.past, longest - chunk)
            pieces.append(Piece(number, slot, start, (0,) * chunk, step.rows - left, rows, Want.NOTHING, False))
            left -= rows
        self._packed.queue(pieces, None)
        self._device.synchronize()


def _columns_of(items: NDArray[np.int64], columns: Columns | None) -> Columns | None:
    """The columns of some items of a launch."""
    if columns is None or np.array_equal(items, np.arange(len(columns))):
        return columns
    return columns.take(items) if len(items) else None
