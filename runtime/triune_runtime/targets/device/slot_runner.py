"""Runs an engine whose KV cache lies in slots of a device's memory. Knows an engine's inputs; no CUDA, no TensorRT.

Decoding runs the first n slots as a batch, and from the second time on as one recorded launch per n; engines of fixed sizes
have one for each of these. Everything else runs one slot at a time. The cache's inputs and outputs are the same memory, so
nothing is gathered or copied. If the engine finds best tokens, logits are downloaded for those items alone that want them.
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
from .device import Device, LoadedEngine, Program, Replay
from .plan import DECODE, PREFILL, SlotPlan, slot_plan
from .slot_cache import SlotCache
from .slot_inputs import Bindings, SlotInputs
from .slot_results import Results

_MOST_ROWS = 32  # of an item: a token and drafts behind it
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
        # A run of fixed size over fewer sequences than it has writes into the slots behind them.
        slots = plan.named(DECODE)[-1][1].batch[2] if plan.fixed_sizes else limits.max_sequences
        self._cache = SlotCache(device, manifest.cache, slots=slots, capacity=plan.capacity)
        rows = max(profile.logits[2] for _, profile in plan.named(PREFILL))
        if plan.fixed_sizes:
            rows = max(rows, _MOST_ROWS)  # of several runs
        self._alone = _Alone(device, engine, self._cache, Results(device, rows, plan, self.vocab_size), plan)
        self._batch = _Batch(device, engine, self._cache, Results(device, slots, plan, self.vocab_size), plan, record=record)

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


class _Alone:
    """Runs of one slot: a part of a prompt, a token outside the batch, drafts."""

    def __init__(self, device: Device, engine: LoadedEngine, cache: SlotCache, results: Results, plan: SlotPlan) -> None:
        self._device, self._cache, self.results = device, cache, results  # valid once the run is done
        profiles = plan.named(PREFILL)
        self._programs = [(profile, engine.program(index)) for index, profile in profiles]
        self._tokens, self._rows = (max(getattr(p, size)[2] for _, p in profiles) for size in ("tokens", "logits"))
        self._fixed = plan.fixed_sizes
        self._inputs = SlotInputs(device, plan, sequences=1, tokens=self._tokens, logits=self._rows)
        for _, program in self._programs:
            results.bind(program)

    def queue(self, item: Work) -> None:
        """Queue the run of `item`, or the last of several; whatever was queued here before must be done."""
        n, m = len(item.tokens), 1 + item.drafts
        assert self._fixed or n <= self._tokens, f"a run of {n} tokens, the engine's profile takes {self._tokens}"
        assert m <= n and (self._fixed or m <= self._rows), (
            f"logits of {m} of {n} tokens, the engine's profile gives {self._rows}"
        )
        start = 0
        while start < n:
            if start:
                self._device.synchronize()  # what it reads and writes is used again
            start += self._queue(item, start)

    def _queue(self, item: Work, start: int) -> int:
        """Queue a run of tokens of `item` from the one with number `start` on; how many they are."""
        n, m, left = len(item.tokens), 1 + item.drafts, len(item.tokens) - start
        profile, program = next((pair for pair in self._programs if pair[0].tokens[2] >= left), self._programs[-1])
        stop = min(n, start + profile.tokens[2])
        first = max(start, n - m)  # of those that get logits
        wanted = range(first - start, stop - start) if first < stop else range(stop - start - 1, stop - start)
        size, rows = max(stop - start, profile.tokens[0]), max(len(wanted), profile.logits[0])
        assert rows <= profile.logits[2], f"logits of {rows} tokens, the engine's profile gives {profile.logits[2]}"
        tokens = item.tokens[start:stop]
        bound = self._inputs.one(tokens, item.start + start, wanted, size=size, rows=rows)
        _bind(program, bound, self._cache, item.slot, 1)
        self._inputs.upload()
        program.enqueue()
        if first < stop:
            at = first - (n - m)
            self.results.download(len(wanted), at=at)
            self.results.download_logits([item.wants is Want.LOGITS] * len(wanted), at=at)
        return stop - start


class _Batch:
    """Runs of one token of each of the first n slots."""

    def __init__(
        self, device: Device, engine: LoadedEngine, cache: SlotCache, results: Results, plan: SlotPlan, *, record: bool
    ) -> None:
        self._device, self._engine, self._cache = device, engine, cache
        self.results = results  # a row a slot, valid once the run is done
        self._record = record
        self._profiles = plan.named(DECODE)
        self._inputs = SlotInputs(device, plan, sequences=self._profiles[-1][1].batch[2], tokens=1, logits=1)
        self._shared: dict[int, Program] = {}  # profile -> bindings of its batch sizes without a recorded launch
        self._programs: dict[int, Program] = {}  # batch size -> bindings that never change: a recording refers to them
        self._replays: dict[int, Replay] = {}

    def queue(self, batch: Sequence[Work]) -> None:
        """Queue a run over slots 0 to len(batch) - 1; the one before must be done."""
        index, profile = next(pair for pair in self._profiles if pair[1].batch[2] >= len(batch))
        size = max(len(batch), profile.batch[0])
        self._inputs.many([item.tokens[0] for item in batch], [item.start for item in batch], size=size)
        if size in self._replays:
            self._replays[size]()
        elif size in self._programs:  # its second run: the first one settled what a recording must not contain
            self._replays[size] = self._recorded(self._programs[size], size)
            self._replays[size]()
        else:
            self._queue_first(index, size)
        # No part of a recording: what is wanted varies.
        self.results.download_logits([item.wants is Want.LOGITS for item in batch])

    def _queue_first(self, index: int, size: int) -> None:
        """Queue a run with bindings of its own, if it may be recorded later, or with those that other sizes share."""
        own = self._record and len(self._programs) < _RECORDED
        program = None if own else self._shared.get(index)
        if program is None:
            program = self._engine.program(index)
        if not own:
            self._shared[index] = program
        _bind(program, self._inputs.bindings(size), self._cache, 0, size)
        self.results.bind(program)
        self._queue(program, size)
        if own and program.capturable:
            self._programs[size] = program
        elif own:
            self._record, self._shared = False, {index: program}

    def _recorded(self, program: Program, size: int) -> Replay:
        """One launch of a run, or the run queued call by call where it cannot be recorded after all."""

        def queue() -> None:
            self._queue(program, size)

        return self._device.capture(queue) or queue

    def _queue(self, program: Program, size: int) -> None:
        self._inputs.upload()
        program.enqueue()
        self.results.download(size)


def _bind(program: Program, inputs: Bindings, cache: SlotCache, first: int, count: int) -> None:
    for name, (address, shape) in inputs.items():
        program.bind_input(name, address, shape)
    for tensor, address, shape in cache.bindings(first, count):
        program.bind_input(f"past.{tensor.name}", address, shape)
        program.bind_output(f"present.{tensor.name}", address)


def _checked(manifest: EngineManifest) -> SlotPlan:
    """The plan, if it is one that this runner runs."""
    plan, limits = slot_plan(manifest), manifest.limits
    names, prefills, decodes = [p.name for p in plan.profiles], plan.named(PREFILL), plan.named(DECODE)
    wanted: dict[str, tuple[Any, Any]] = {
        "profiles": ([PREFILL, DECODE], sorted(set(names), reverse=True) if plan.fixed_sizes else names),
        "windows in the cache": ([], [c.name for c in manifest.cache if c.window is not None]),
        "cache tensors with several outputs": ([], [c.name for c in manifest.cache if c.outputs != 1]),
    }
    least = limits.max_length
    if plan.fixed_sizes:  # any number of runs make a prompt, and any slots behind the sequences are there
        most = decodes[-1][1].batch[2] if decodes else 0
        wanted["sequences of a decode"] = (max(most, limits.max_sequences), most)
        least += 1  # the last position is that of what fills up a run
    else:
        wanted["tokens of a prefill"] = (limits.prefill_chunk, prefills[0][1].tokens[2] if prefills else 0)
        wanted["sequences of a decode"] = (limits.max_sequences, decodes[0][1].batch[2] if decodes else 0)
    different: dict[str, Any] = {what: pair for what, pair in wanted.items() if pair[0] != pair[1]}
    if plan.capacity < least:
        different["positions of a slot"] = (least, plan.capacity)
    if different:
        what, (expected, found) = next(iter(different.items()))
        raise ManifestError(f"engine.json has {what} {found}; this runtime needs {expected}", "build the engine again")
    return plan
