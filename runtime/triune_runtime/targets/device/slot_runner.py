"""Runs an engine whose KV cache lies in slots of a device's memory. Knows an engine's inputs; no CUDA, no TensorRT.

Decoding runs the first n slots as a batch, and from the second time on as one recorded launch per n. Everything else runs one
slot at a time. The cache's inputs and outputs are the same memory, so nothing is gathered or copied. If the engine finds best
tokens, logits are downloaded for those items alone that want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ManifestError
from ...manifest import EngineManifest
from ...runner import Immediate, Rows, Want, Work
from ..grouping import group
from .device import Device, LoadedEngine, Program, Replay, aligned
from .plan import Profile, SlotPlan, slot_plan
from .slot_cache import SlotCache
from .slot_results import Results

PREFILL, DECODE = "prefill", "decode"
_RECORDED = 64  # batch sizes with a recorded launch; each keeps bindings of its own, hundreds would cost memory for little


class SlotRunner(Immediate):
    """See `Runner`."""

    def __init__(self, manifest: EngineManifest, device: Device, engine: LoadedEngine, *, record: bool = True) -> None:
        """
        Args:
            record: decode by recorded launches; without, every run is queued call by call.

        Raises:
            ManifestError: the manifest's profiles or cache are not what this runner runs.
        """
        plan = _checked(manifest)
        limits, self._device = manifest.limits, device
        self.vocab_size = manifest.vocab_size
        self.chooses = frozenset({"greedy"}) if plan.best_tokens else frozenset()
        self._slots = limits.max_sequences
        self._cache = SlotCache(device, manifest.cache, slots=self._slots, capacity=plan.capacity)
        alone = Results(device, plan.profiles[0].logits[2], self.vocab_size, best=plan.best_tokens)
        self._alone = _Alone(device, engine, self._cache, alone, plan.profiles[0])
        batch = Results(device, self._slots, self.vocab_size, best=plan.best_tokens)
        self._batch = _Batch(device, engine, self._cache, batch, self._slots, record=record)

    @property
    def cache_bytes(self) -> int:
        """Bytes of device memory that the KV slots take."""
        return self._cache.bytes

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Immediate.run`."""
        return self.run_rows(work).logits

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """See `Runner.run_rows`."""
        groups = group(work, from_first=True)
        batch = groups.batches[0] if groups.batches else ()
        rows = self._batch.results.empty(groups.count)
        if batch:
            self._batch.queue(batch)
        for item in groups.alone:  # the first is queued while the batch still runs
            self._alone.queue(item)
            self._device.synchronize()
            self._alone.results.give(rows, groups.rows[item.slot], 0, logits=item.wants is Want.LOGITS)
        if batch:
            if not groups.alone:
                self._device.synchronize()
            for item in batch:
                self._batch.results.give(rows, groups.rows[item.slot], item.slot, logits=item.wants is Want.LOGITS)
        return rows

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Immediate.copy_slot`. Only queued: the next run comes after it."""
        self._cache.copy(source, target, length)


class _Feed:
    """Arrays of int64 that go to the device together: a pinned block, its twin there, and views of its parts."""

    def __init__(self, device: Device, sizes: dict[str, int]) -> None:
        """
        Args:
            sizes: name -> how many numbers.
        """
        self._device = device
        offsets, end = {}, 0
        for name, size in sizes.items():
            offsets[name] = end
            end += aligned(8 * size)
        self._block = device.host((end // 8,), np.int64)
        base = device.allocate(end)
        self.addresses = {name: base + offset for name, offset in offsets.items()}
        self.parts: dict[str, NDArray[np.int64]] = {
            name: self._block[offset // 8 : offset // 8 + sizes[name]] for name, offset in offsets.items()
        }

    def upload(self) -> None:
        self._device.upload(min(self.addresses.values()), self._block)


class _Alone:
    """Runs of one slot: a part of a prompt, a token outside the batch, drafts."""

    def __init__(self, device: Device, engine: LoadedEngine, cache: SlotCache, results: Results, profile: Profile) -> None:
        self._cache, self.results = cache, results  # valid once the run is done
        self._program = engine.program(0)
        self._tokens, self._rows = profile.tokens[2], profile.logits[2]
        self._feed = _Feed(
            device, {"input_ids": self._tokens, "positions": self._tokens, "starts": 1, "logit_positions": self._rows}
        )
        results.bind(self._program)

    def queue(self, item: Work) -> None:
        """Queue the run of `item`; whatever was queued here before must be done."""
        n, m = len(item.tokens), 1 + item.drafts
        assert n <= self._tokens, f"a run of {n} tokens, the engine's profile takes {self._tokens}"
        assert m <= min(n, self._rows), f"logits of {m} of {n} tokens, the engine's profile gives {self._rows}"
        parts, addresses = self._feed.parts, self._feed.addresses
        parts["input_ids"][:n] = item.tokens
        parts["positions"][:n] = np.arange(item.start, item.start + n)
        parts["starts"][0] = item.start
        parts["logit_positions"][:m] = np.arange(n - m, n)
        shapes = {"input_ids": (1, n), "positions": (1, n), "starts": (1,), "logit_positions": (m,)}
        _bind(self._program, {name: (addresses[name], shape) for name, shape in shapes.items()}, self._cache, item.slot, 1)
        self._feed.upload()
        self._program.enqueue()
        self.results.download(m)
        self.results.download_logits([item.wants is Want.LOGITS] * m)


class _Batch:
    """Runs of one token of each of the first n slots."""

    def __init__(
        self, device: Device, engine: LoadedEngine, cache: SlotCache, results: Results, slots: int, *, record: bool
    ) -> None:
        self._device, self._engine, self._cache = device, engine, cache
        self.results = results  # a row a slot, valid once the run is done
        self._record = record
        self._feed = _Feed(device, {"input_ids": slots, "positions": slots, "starts": slots, "logit_positions": 1})
        self._shared: Program | None = None  # of batch sizes without a recorded launch
        self._programs: dict[int, Program] = {}  # batch size -> bindings that never change: a recording refers to them
        self._replays: dict[int, Replay] = {}

    def queue(self, batch: Sequence[Work]) -> None:
        """Queue a run over slots 0 to len(batch) - 1; the one before must be done."""
        n, parts = len(batch), self._feed.parts
        for slot, item in enumerate(batch):
            parts["input_ids"][slot] = item.tokens[0]
            parts["positions"][slot] = parts["starts"][slot] = item.start
        if n in self._replays:
            self._replays[n]()
        elif n in self._programs:  # its second run: the first one settled what a recording must not contain
            self._replays[n] = self._recorded(self._programs[n], n)
            self._replays[n]()
        else:
            self._queue_first(n)
        # No part of a recording: what is wanted varies.
        self.results.download_logits([item.wants is Want.LOGITS for item in batch])

    def _queue_first(self, n: int) -> None:
        """Queue a run with bindings of its own, if it may be recorded later, or with those that other sizes share."""
        own = self._record and len(self._programs) < _RECORDED
        if not own:
            self._shared = self._shared or self._engine.program(1)
        program = self._engine.program(1) if own or self._shared is None else self._shared
        addresses = self._feed.addresses
        shapes = {"input_ids": (n, 1), "positions": (n, 1), "starts": (n,), "logit_positions": (1,)}
        _bind(program, {name: (addresses[name], shape) for name, shape in shapes.items()}, self._cache, 0, n)
        self.results.bind(program)
        self._queue(program, n)
        if own and program.capturable:
            self._programs[n] = program
        elif own:
            self._record, self._shared = False, program

    def _recorded(self, program: Program, n: int) -> Replay:
        """One launch of a run, or the run queued call by call where it cannot be recorded after all."""

        def queue() -> None:
            self._queue(program, n)

        return self._device.capture(queue) or queue

    def _queue(self, program: Program, n: int) -> None:
        self._feed.upload()
        program.enqueue()
        self.results.download(n)


def _bind(program: Program, inputs: dict[str, tuple[int, tuple[int, ...]]], cache: SlotCache, first: int, count: int) -> None:
    for name, (address, shape) in inputs.items():
        program.bind_input(name, address, shape)
    for tensor, address, shape in cache.bindings(first, count):
        program.bind_input(f"past.{tensor.name}", address, shape)
        program.bind_output(f"present.{tensor.name}", address)


def _checked(manifest: EngineManifest) -> SlotPlan:
    """The plan, if it is one that this runner runs."""
    plan, limits = slot_plan(manifest), manifest.limits
    wanted = {
        "profiles": ([PREFILL, DECODE], [p.name for p in plan.profiles]),
        "tokens of a prefill": (limits.prefill_chunk, plan.profiles[0].tokens[2] if plan.profiles else 0),
        "sequences of a decode": (limits.max_sequences, plan.profiles[-1].batch[2] if plan.profiles else 0),
        "windows in the cache": ([], [c.name for c in manifest.cache if c.window is not None]),
        "cache tensors with several outputs": ([], [c.name for c in manifest.cache if c.outputs != 1]),
    }
    different: dict[str, Any] = {what: pair for what, pair in wanted.items() if pair[0] != pair[1]}
    if plan.capacity < limits.max_length:
        different["positions of a slot"] = (limits.max_length, plan.capacity)
    if different:
        what, (expected, found) = next(iter(different.items()))
        raise ManifestError(f"engine.json has {what} {found}; this runtime needs {expected}", "build the engine again")
    return plan
