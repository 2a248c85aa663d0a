"""What a paged runner runs, without a GPU: over the very same device buffers, on `HostDevice`, when the queue comes to it.

Stricter than a GPU: every address is checked, two sequences never write to one place, nothing is read that was not written,
bounds hold for what they bound, and what nobody may read (rows of no sequence, logits behind a step's) is not a number.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.paged import logits_of
from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.sampling.columns import Columns
from triune_runtime.sampling.host import choose
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.cuda.protocols import CacheGroup, Feed, StepBuffers, StepShape
from triune_runtime.targets.cuda.runner import PagedRunner, step_sizes
from triune_runtime.targets.device.host import HostDevice

BYTE, INT32, INT64, FLOAT = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32)
CACHE = (
    CacheTensor(name="0.key", heads=1, dim=1),
    CacheTensor(name="0.value", heads=2, dim=1),
    CacheTensor(name="1.key", heads=1, dim=1),
)


def cuda_manifest(vocab_size: int, limits: Limits, block_tokens: int, stops: tuple[int, ...] = ()) -> EngineManifest:
    plan = CudaPlan(dtype="float16", block_tokens=block_tokens)
    return EngineManifest(
        model="fake", architecture="fake", target="cuda", precision="fake", engine="model.onnx", vocab_size=vocab_size,
        cache=CACHE, stop_token_ids=stops, limits=limits, plan=plan.to_json(),
    )  # fmt: skip


class HostProgram:
    """See `StepProgram`: keeps tokens where a model keeps KV, and its logits are a hash of those that a sequence has there."""

    def __init__(self, device: HostDevice, manifest: EngineManifest, *, replays: bool = False) -> None:
        self._device, self._manifest, self.replays = device, manifest, replays
        self._size = CudaPlan.of(manifest).block_tokens
        self._cache: list[NDArray[np.float32]] = []
        self.shapes: list[StepShape] = []  # of the steps that were queued or recorded
        self.numbers: list[int | None] = []
        self.ran = 0
        self.closed = False

    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None:
        assert addresses.keys() == {tensor.name for tensor in self._manifest.cache}
        self._cache = [
            self._device.view(addresses[tensor.name], (blocks, self._size, tensor.heads * tensor.dim), FLOAT)
            for tensor in self._manifest.cache
        ]

    def enqueue(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None = None) -> None:
        view, cache = self._device.view, self._cache
        arrays = (
            view(buffers.input_ids, (shape.tokens,), INT64),
            view(buffers.cu_seqlens, (shape.sequences + 1,), INT32),
            view(buffers.past_seqlens, (shape.sequences,), INT32),
            view(buffers.block_table, (shape.sequences, shape.width), INT32),
            view(buffers.logits_at, (shape.rows,), INT64),
        )
        logits = view(buffers.logits, (shape.rows, self._manifest.vocab_size), FLOAT)
        limits = bounds.copy()  # of host memory: what they are now
        self.shapes.append(shape)
        self.numbers.append(number)
        self._device.queue(lambda: self._run(arrays, logits, limits, cache))

    def close(self) -> None:
        assert not self._device.queued, "closed with work in the queue"
        self.closed = True

    def _run(
        self, arrays: tuple[NDArray[Any], ...], logits: NDArray[np.float32], bounds: NDArray[np.int32], cache: Sequence[Any]
    ) -> None:
        ids, ends, past, table, at = arrays
        self.ran += 1
        scratch, written = len(cache[0]) - 1, set[tuple[int, int]]()
        assert ends[0] == 0 and ends[-1] == len(ids) and (np.diff(ends) > 0).all(), ends
        assert (ids >= 0).all() and (ids < self._manifest.vocab_size).all(), f"tokens {ids}"
        lengths = np.diff(ends)
        longest = (lengths + past).max()
        assert lengths.max() <= bounds[0] and longest <= bounds[1], f"{lengths} new tokens, {longest} of one, bounds {bounds}"
        assert longest >= bounds[2] or (table[:, 0] == scratch).all(), f"{longest} tokens of the longest, bounds {bounds}"
        nobody = table[:, 0] == scratch
        assert nobody.all() or not past[nobody].any(), "a row of no sequence reads nothing"
        rows: dict[int, NDArray[np.float32]] = {}
        for i, start in enumerate(past.tolist()):
            for position, token in enumerate(ids[ends[i] : ends[i + 1]].tolist(), start):
                block, place = int(table[i, position // self._size]), position % self._size
                assert 0 <= block <= scratch, f"block {block} of {scratch}"
                assert block == scratch or (block, place) not in written, "two sequences write to one place"
                written.add((block, place))
                for tensor in cache:
                    tensor[block, place] = token + 1
        for i, start in enumerate(past.tolist()):
            length = start + int(ends[i + 1] - ends[i])
            blocks = table[i, : -(-length // self._size)]
            held = [tensor[blocks].reshape(-1, tensor.shape[-1])[:length] for tensor in cache]
            real = scratch not in blocks
            if real:
                assert all((tensor[:, :1] == held[0][:, :1]).all() and (tensor == tensor[:, :1]).all() for tensor in held)
                assert (held[0] > 0).all(), "a sequence reads where nothing was written"
            tokens = (held[0][:, 0] - 1).astype(int).tolist()
            for token in range(int(ends[i]), int(ends[i + 1])):
                if token in at:
                    done = start + token - int(ends[i]) + 1
                    rows[token] = logits_of(tokens[:done], logits.shape[1], self._manifest.stop_token_ids)
                    if not real:
                        rows[token][:] = np.nan
        for row, token in enumerate(at.tolist()):
            logits[row] = rows[token]


class HostFeeder:
    """See `Feeder`."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device

    def patch(self, tables: int, cells: int, values: int, count: int) -> None:
        assert not self._device.recording, "what changes cannot be recorded"
        where, new = (self._device.view(address, (count,), INT32) for address in (cells, values))

        def run() -> None:
            for cell, value in zip(where.tolist(), new.tolist(), strict=True):
                self._device.view(tables + 4 * cell, (1,), INT32)[0] = value

        self._device.queue(run)

    def assemble(self, step: Feed, buffers: StepBuffers, shape: StepShape) -> None:
        view = self._device.view
        slots, fed = (view(address, (shape.sequences,), INT32) for address in (step.slots, step.fed))
        ids, ends = view(buffers.input_ids, (shape.tokens,), INT64), view(buffers.cu_seqlens, (shape.sequences + 1,), INT32)
        table = view(buffers.block_table, (shape.sequences, shape.width), INT32)
        assert shape.width <= step.table_width

        def run() -> None:
            for i, slot in enumerate(slots.tolist()):
                table[i] = view(step.tables + 4 * step.table_width * slot, (shape.width,), INT32)
                if fed[i]:
                    ids[ends[i + 1] - 1] = view(step.latest + 8 * slot, (1,), INT64)[0]

        self._device.queue(run)

    def remember(self, latest: int, slots: int, rows: int, tokens: int, count: int) -> None:
        view = self._device.view
        whose, which = (view(address, (count,), INT32) for address in (slots, rows))

        def run() -> None:
            for slot, row in zip(whose.tolist(), which.tolist(), strict=True):
                if row >= 0:
                    view(latest + 8 * slot, (1,), INT64)[0] = view(tokens + 8 * row, (1,), INT64)[0]

        self._device.queue(run)

    def copy_blocks(self, group: CacheGroup, pairs: Sequence[tuple[int, int]]) -> None:
        assert not self._device.recording, "what changes cannot be recorded"
        targets = {target for _, target in pairs}
        assert len(targets) == len(pairs) and targets.isdisjoint(source for source, _ in pairs), "one copy waits for another"
        for number in range(group.tensors):
            for pair in pairs:
                places = (group.base + number * group.pitch + block * group.block_bytes for block in pair)
                old, new = (self._device.view(address, (group.block_bytes,), BYTE) for address in places)
                self._device.queue(functools.partial(np.copyto, new, old))


class HostChooser:
    """See `Chooser`: as the host chooses, when the queue comes to it, with the columns of the step."""

    def __init__(self, device: HostDevice, rows: int, vocab_size: int, chooses: frozenset[str]) -> None:
        self._device, self._rows, self._vocab_size, self.chooses = device, rows, vocab_size, chooses
        self.tokens, self.logits = device.allocate(8 * rows), device.allocate(4 * rows)
        self._columns: Columns | None = None

    def prepare(self, columns: Columns | None, rows: int) -> None:
        assert not self._device.recording, "what changes cannot be recorded"
        assert rows <= self._rows and (columns is None or len(columns) <= rows)

        def run() -> None:
            self._columns = columns

        self._device.queue(run)

    def enqueue(self, logits: int, rows: int) -> None:
        scores = self._device.view(logits, (rows, self._vocab_size), FLOAT)
        tokens = self._device.view(self.tokens, (rows,), INT64)
        chosen = self._device.view(self.logits, (rows,), FLOAT)

        def run() -> None:
            tokens[:] = np.where(np.isnan(scores).any(1), 0, scores.argmax(1))
            if self._columns is not None:
                count = len(self._columns)
                tokens[:count] = choose(scores[:count], self._columns).tokens
            chosen[:] = scores[np.arange(rows), tokens]

        self._device.queue(run)


class HostPaged:
    """A paged runner on a host device, and its parts."""

    def __init__(
        self,
        manifest: EngineManifest,
        *,
        chooses: frozenset[str] | None = frozenset({"greedy"}),
        blocks: int | None = None,
        record: bool = True,
        replays: bool = False,
        device: HostDevice | None = None,
    ) -> None:
        self.device = device or HostDevice()
        self.program = HostProgram(self.device, manifest, replays=replays)
        rows = step_sizes(manifest.limits).rows
        chooser = None if chooses is None else HostChooser(self.device, rows, manifest.vocab_size, chooses)
        self.runner = PagedRunner(
            manifest, self.device, self.program, HostFeeder(self.device), chooser, blocks=blocks, record=record
        )
