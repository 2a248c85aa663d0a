"""Where the outputs of a slot runner's programs go: device memory, and pinned memory for what is wanted on the host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runner import Best, Rows
from .device import Device, Program, aligned
from .plan import SlotPlan


class Results:
    """Logits of some rows, and their best tokens where the engine finds these.

    Every run brings back what is small: the best tokens. Logits follow only where they are wanted; from an engine without best
    tokens all of them, in every run.
    """

    def __init__(self, device: Device, rows: int, plan: SlotPlan, vocab_size: int) -> None:
        self._device = device
        self._logits: NDArray[np.float32] = device.host((rows, vocab_size), np.float32)
        self._device_logits = device.allocate(self._logits.nbytes)
        self._best: Best | None = None
        if plan.best_tokens:
            width = 4 if plan.fixed_sizes else 8  # bytes of a token
            offset = aligned(width * rows)  # tokens and logits lie in one block, for one copy
            self._block = device.host((offset + 4 * rows,), np.uint8)
            tokens: NDArray[Any] = self._block[: width * rows].view(np.int32 if plan.fixed_sizes else np.int64)
            self._best = Best(tokens, self._block[offset:].view(np.float32))
            self._device_tokens = device.allocate(self._block.nbytes)
            self._device_best_logits = self._device_tokens + offset

    def bind(self, program: Program) -> None:
        """Let the outputs of `program` go here."""
        program.bind_output("logits", self._device_logits)
        if self._best is not None:
            program.bind_output("best_tokens", self._device_tokens)
            program.bind_output("best_logits", self._device_best_logits)

    def download(self, count: int, *, at: int = 0) -> None:
        """Queue what comes back from every run of `count` rows: may be recorded with it.

        Args:
            at: the first of these rows on the host; on the device they are always the first ones.
        """
        if self._best is None:
            self._device.download(self._logits[at : at + count], self._device_logits)
        elif at:
            self._device.download(self._best.tokens[at : at + count], self._device_tokens)
            self._device.download(self._best.logits[at : at + count], self._device_best_logits)
        else:
            self._device.download(self._block, self._device_tokens)

    def download_logits(self, wanted: Sequence[bool], *, at: int = 0) -> None:
        """Queue the logits of the rows that are `wanted`, if `download` has not; what follows each other in one copy."""
        if self._best is None:
            return
        row_bytes = self._logits[0].nbytes
        for asked, span in itertools.groupby(enumerate(wanted), lambda row: row[1]):
            if asked:
                rows = [row for row, _ in span]
                where = self._logits[at + rows[0] : at + rows[-1] + 1]
                self._device.download(where, self._device_logits + rows[0] * row_bytes)

    def give(self, rows: Rows, where: slice, first: int, *, logits: bool) -> None:
        """Copy what has come back, from row `first` on, to the rows `where` of `rows`."""
        own = slice(first, first + where.stop - where.start)
        if logits or self._best is None:
            rows.logits[where] = self._logits[own]
        if self._best is not None and rows.best is not None:
            rows.best.tokens[where] = self._best.tokens[own]
            rows.best.logits[where] = self._best.logits[own]

    def empty(self, count: int) -> Rows:
        """Room for the results of runs that have `count` rows in all."""
        best = self._best and Best(np.empty(count, np.int64), np.empty(count, np.float32))
        return Rows(np.empty((count, self._logits.shape[1]), np.float32), best)
