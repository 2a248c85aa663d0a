"""Runs an engine with ONNX Runtime on the CPU. Owns the KV slots' memory.

A layer's past and present are one buffer [slots, heads, positions, dim]: the attention op appends in place. Decoding binds
neighbouring slots as a batch, prefill one slot as a batch of one, so nothing is gathered or copied. Tokens with drafts run
in a graph of their own, for which every one of them is a sequence, and those of one sequence have one slot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import ManifestError
from ...manifest import EngineManifest, checked_name
from ...runner import Immediate, Work
from ..grouping import group, neighbours
from .mtp import HiddenStates, OrtMtp
from .plan import computes_in_tiles
from .session import bind_input, bind_output, load, release, untouched
from .windows import WindowedBuffers


class OrtRunner(Immediate):
    """See `Runner`. Memory of slots is touched only as sequences grow into it."""

    scores = True

    def __init__(self, manifest: EngineManifest, folder: Path, *, threads: int | None = None) -> None:
        """Load the engine of `manifest` from `folder`.

        Args:
            threads: for one run; by default every core this process may use.

        Raises:
            ManifestError: the engine cannot be loaded, or its inputs and outputs are not those the manifest names.
        """
        self.vocab_size = manifest.vocab_size
        self._slots = manifest.limits.max_sequences
        threads = threads or len(os.sched_getaffinity(0))
        tiles = computes_in_tiles(manifest, threads)
        self._session = load(folder / manifest.engine, threads, tiles=tiles)
        wanted = {"input_ids", "total_lengths", "logit_positions", *(f"past.{c.name}" for c in manifest.cache)}
        found = {i.name for i in self._session.get_inputs()}
        if wanted != found:
            raise ManifestError(
                f"{manifest.engine} has other inputs than engine.json says: {', '.join(sorted(wanted ^ found))}",
                "build the engine again",
            )
        self._longest = manifest.limits.max_length
        positions = {c.name: c.positions(self._longest) for c in manifest.cache}
        self._cache = {c.name: untouched((self._slots, c.heads, positions[c.name], c.dim), c.dtype) for c in manifest.cache}
        self._full = [self._cache[c.name] for c in manifest.cache if c.window is None]
        windows = sorted({c.window for c in manifest.cache if c.window is not None})
        self._windowed = [
            WindowedBuffers(window, [self._cache[c.name] for c in manifest.cache if c.window == window]) for window in windows
        ]
        self._outputs = {c.name: c.output_names for c in manifest.cache}
        self._ids = np.zeros((self._slots, 1), np.int64)
        self._lengths = np.zeros(self._slots, np.int32)
        speculation = manifest.speculation
        self._checks = load(folder / speculation.engine, threads, tiles=tiles) if speculation else None
        self._checked = speculation.tokens if speculation else 0  # tokens of a run of that graph
        self._mtp: OrtMtp | None = None
        self._seen: HiddenStates | None = None
        if speculation and speculation.mtp:
            self._seen = HiddenStates(self._slots, self._checked, speculation.mtp.hidden_size)
            self.mtp = self._mtp = OrtMtp(speculation.mtp, self._seen, manifest, folder, threads)
        self._outlets: dict[int, _Outlet] = {}  # tokens with logits -> where they go
        self._decode: dict[tuple[int, int], onnxruntime.IOBinding] = {}  # first slot, slot behind the last -> binding
        self._drafts: dict[tuple[int, int], onnxruntime.IOBinding] = {}  # first slot, slot behind the last -> binding
        rows = self._checked * self._slots  # of a token of every sequence, then of the next of every sequence, ...
        self._draft_ids = np.zeros((rows, 1), np.int64)
        self._draft_lengths = np.zeros(rows, np.int32)
        self._draft_outlet = _Outlet(rows, 1, self.vocab_size)
        self._alone: dict[tuple[int, int], onnxruntime.IOBinding] = {}  # (slot, tokens with logits) -> binding

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Immediate.run`."""
        for buffers in self._windowed:
            for item in work:
                buffers.prepare(item.slot, item.start, len(item.tokens), item.drafts)
        groups = group(work)
        logits = np.empty((groups.count, self.vocab_size), np.float32)
        for batch in groups.batches:
            for item, found in zip(batch, self._run_batch(batch), strict=True):
                logits[groups.rows[item.slot]] = found
        drafted = [item for item in groups.alone if item.drafts and len(item.tokens) == 1 + item.drafts <= self._checked]
        for batch in neighbours(drafted):
            for item, found in zip(batch, self._run_drafts(batch), strict=True):
                logits[groups.rows[item.slot]] = found[: len(item.tokens)]
        for item in groups.alone:
            if item not in drafted:  # the attention op takes several tokens of one sequence only
                logits[groups.rows[item.slot]] = self._run_alone(item)
        return logits

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Immediate.copy_slot`."""
        for tensor in self._full:
            tensor[target, :, :length] = tensor[source, :, :length]
        for buffers in self._windowed:
            buffers.copy(source, target, length)
        if self._mtp is not None:
            self._mtp.copy_slot(source, target, length)

    def give_back(self, slot: int, length: int) -> None:
        """See `Shrinking.give_back`. Where a buffer drops what its window has passed, positions are not tokens."""
        for tensor in self._full if length else self._cache.values():
            release(tensor[slot], length)
        if self._mtp is not None:
            self._mtp.give_back(slot, length)

    def _run_batch(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [len(batch), vocab_size] after the one token of each of some neighbouring slots."""
        first, stop, outlet = batch[0].slot, batch[-1].slot + 1, self._outlet(1)
        for item in batch:
            self._ids[item.slot, 0] = item.tokens[0]
            self._lengths[item.slot] = item.start + 1
        if (first, stop) not in self._decode:
            where = slice(first, stop)
            binding = self._bind(self._session, where, self._lengths[where], outlet.positions, outlet.logits[where])
            bind_input(binding, "input_ids", self._ids[where])
            if self._seen:
                bind_output(binding, "hidden", self._seen.singles[where])
            self._decode[first, stop] = binding
        self._session.run_with_iobinding(self._decode[first, stop])
        if self._seen:
            for item in batch:
                self._seen.note(item.slot, item.start, self._seen.singles[item.slot])
        return outlet.logits[first:stop, 0]

    def _run_drafts(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [len(batch), tokens, vocab_size] of neighbouring slots. Behind fewer drafts, the last one is repeated."""
        assert self._checks is not None and not self._windowed, "an engine without a graph that checks drafts"
        first, stop, n, outlet = batch[0].slot, batch[-1].slot + 1, len(batch) * self._checked, self._draft_outlet
        ids = self._draft_ids[:n].reshape(self._checked, len(batch))
        lengths = self._draft_lengths[:n].reshape(self._checked, len(batch))
        for column, item in enumerate(batch):
            assert item.start + self._checked <= self._longest, f"{self._checked} tokens at {item.start} of {self._longest}"
            ids[:, column] = [*item.tokens, *item.tokens[-1:] * (self._checked - len(item.tokens))]
            lengths[:, column] = np.arange(item.start + 1, item.start + 1 + self._checked)
        if (first, stop) not in self._drafts:
            where = slice(first, stop)
            binding = self._bind(
                self._checks, where, self._draft_lengths[:n], outlet.positions, outlet.logits[:n], self._checked
            )
            bind_input(binding, "input_ids", self._draft_ids[:n])
            if self._seen:
                bind_output(binding, "hidden", self._seen.checked[:n])
            self._drafts[first, stop] = binding
        self._checks.run_with_iobinding(self._drafts[first, stop])
        if self._seen:
            hidden = self._seen.checked[:n].reshape(self._checked, len(batch), -1)
            for column, item in enumerate(batch):
                self._seen.note(item.slot, item.start, hidden[: len(item.tokens), column].copy())
        logits: NDArray[np.float32] = outlet.logits[:n].reshape(self._checked, len(batch), -1).swapaxes(0, 1)
        return logits

    def _run_alone(self, item: Work) -> NDArray[np.float32]:
        """Logits [item.rows, vocab_size]."""
        ids = np.array([item.tokens], np.int64)
        where = slice(item.slot, item.slot + 1)
        self._lengths[item.slot] = item.start + len(item.tokens)
        logits: NDArray[np.float32]
        if item.scored:  # of any length, and rare: nothing of it is kept
            outlet = _Outlet(1, item.rows, self.vocab_size)
            binding = self._bind(self._session, where, self._lengths[where], outlet.positions, outlet.logits)
            self._run_bound(binding, item, ids)
            logits = outlet.logits[0]
            return logits
        outlet, key = self._outlet(item.rows), (item.slot, item.rows)
        if key not in self._alone:
            self._alone[key] = self._bind(self._session, where, self._lengths[where], outlet.positions, outlet.logits[where])
        self._run_bound(self._alone[key], item, ids)
        logits = outlet.logits[item.slot]
        return logits

    def _run_bound(self, binding: onnxruntime.IOBinding, item: Work, ids: NDArray[np.int64]) -> None:
        bind_input(binding, "input_ids", ids)
        if self._seen:
            hidden = self._seen.empty(len(item.tokens))
            bind_output(binding, "hidden", hidden)
        self._session.run_with_iobinding(binding)
        if self._seen:
            self._seen.note(item.slot, item.start, hidden[0])

    def _outlet(self, m: int) -> _Outlet:
        if m not in self._outlets:
            self._outlets[m] = _Outlet(self._slots, m, self.vocab_size)
        return self._outlets[m]

    def _bind(
        self,
        session: onnxruntime.InferenceSession,
        slots: slice,
        lengths: NDArray[np.int32],
        positions: NDArray[np.int64],
        logits: NDArray[np.float32],
        tokens: int = 1,
    ) -> onnxruntime.IOBinding:
        """All but the tokens and the hidden states; buffers outlive the binding because the runner owns them.

        Args:
            tokens: after each of which the graph appends to the cache by outputs of its own.
        """
        binding = session.io_binding()
        bind_input(binding, "total_lengths", lengths)
        bind_input(binding, "logit_positions", positions)
        bind_output(binding, "logits", logits)
        for name, tensor in self._cache.items():
            bind_input(binding, f"past.{name}", tensor[slots])
            for output in self._outputs[name]:
                for number in range(tokens):
                    bind_output(binding, checked_name(output, number), tensor[slots])
        return binding


class _Outlet:
    """Buffers of runs that give logits after the last `m` tokens of each sequence."""

    def __init__(self, slots: int, m: int, vocab_size: int) -> None:
        self.positions = np.arange(-m, 0)
        self.logits = np.zeros((slots, m, vocab_size), np.float32)
