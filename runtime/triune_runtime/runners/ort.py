"""Runs an engine with ONNX Runtime on the CPU. Owns the KV slots' memory; the only importer of onnxruntime in the runtime.

A layer's past and present are one buffer [slots, heads, positions, dim]: the attention op appends in place. Decoding binds
its first n slots as a batch, prefill one slot as a batch of one, so nothing is gathered or copied.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..errors import ManifestError
from ..manifest import EngineManifest
from . import Work
from .windows import WindowedBuffers


class OrtRunner:
    """See `Runner`. Memory of slots is touched only as sequences grow into it."""

    def __init__(self, manifest: EngineManifest, folder: Path, *, threads: int | None = None) -> None:
        """Load the engine of `manifest` from `folder`.

        Args:
            threads: for one run; by default every core this process may use.

        Raises:
            ManifestError: the engine cannot be loaded, or its inputs and outputs are not those the manifest names.
        """
        self.vocab_size = manifest.vocab_size
        self._slots = manifest.limits.max_sequences
        self._session = _load(folder / manifest.engine, threads or len(os.sched_getaffinity(0)))
        wanted = {"input_ids", "total_lengths", "logit_positions", *(f"past.{c.name}" for c in manifest.cache)}
        found = {i.name for i in self._session.get_inputs()}
        if wanted != found:
            raise ManifestError(
                f"{manifest.engine} has other inputs than engine.json says: {', '.join(sorted(wanted ^ found))}",
                "build the engine again",
            )
        positions = {c.name: c.positions(manifest.limits.max_length) for c in manifest.cache}
        self._cache = {c.name: _untouched((self._slots, c.heads, positions[c.name], c.dim), c.dtype) for c in manifest.cache}
        self._full = [self._cache[c.name] for c in manifest.cache if c.window is None]
        windows = sorted({c.window for c in manifest.cache if c.window is not None})
        self._windowed = [
            WindowedBuffers(window, [self._cache[c.name] for c in manifest.cache if c.window == window]) for window in windows
        ]
        self._outputs = {c.name: c.output_names for c in manifest.cache}
        self._ids = np.zeros((self._slots, 1), np.int64)
        self._lengths = np.zeros(self._slots, np.int32)
        self._outlets: dict[int, _Outlet] = {}  # tokens with logits -> where they go
        self._decode: dict[int, onnxruntime.IOBinding] = {}  # batch size -> binding
        self._alone: dict[tuple[int, int], onnxruntime.IOBinding] = {}  # (slot, tokens with logits) -> binding

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Runner.run`."""
        for buffers in self._windowed:
            for item in work:
                buffers.prepare(item.slot, item.start, len(item.tokens), item.drafts)
        ends = list(itertools.accumulate(1 + item.drafts for item in work))
        logits = np.empty((ends[-1], self.vocab_size), np.float32)
        rows = {item.slot: slice(end - 1 - item.drafts, end) for item, end in zip(work, ends, strict=True)}
        single = {item.slot: item for item in work if len(item.tokens) == 1}
        batch = [single[slot] for slot in itertools.takewhile(single.__contains__, range(self._slots))]
        if batch:
            for item, found in zip(batch, self._run_batch(batch), strict=True):
                logits[rows[item.slot]] = found
        for item in work:
            if item.slot >= len(batch):  # the attention op takes several tokens of one sequence only
                logits[rows[item.slot]] = self._run_alone(item)
        return logits

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Runner.copy_slot`."""
        for tensor in self._full:
            tensor[target, :, :length] = tensor[source, :, :length]
        for buffers in self._windowed:
            buffers.copy(source, target, length)

    def _run_batch(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [len(batch), vocab_size] after the one token of each of slots 0 to len(batch) - 1."""
        n, outlet = len(batch), self._outlet(1)
        for slot, item in enumerate(batch):
            self._ids[slot, 0] = item.tokens[0]
            self._lengths[slot] = item.start + 1
        if n not in self._decode:
            self._decode[n] = self._bind(0, n, self._ids[:n], outlet)
        self._session.run_with_iobinding(self._decode[n])
        return outlet.logits[:n, 0]

    def _run_alone(self, item: Work) -> NDArray[np.float32]:
        """Logits [1 + drafts, vocab_size]."""
        ids = np.array([item.tokens], np.int64)
        outlet = self._outlet(1 + item.drafts)
        self._lengths[item.slot] = item.start + len(item.tokens)
        key = item.slot, 1 + item.drafts
        if key not in self._alone:
            self._alone[key] = self._bind(item.slot, item.slot + 1, ids, outlet)
        binding = self._alone[key]
        _bind_input(binding, "input_ids", ids)
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = outlet.logits[item.slot]
        return logits

    def _outlet(self, m: int) -> _Outlet:
        if m not in self._outlets:
            self._outlets[m] = _Outlet(self._slots, m, self.vocab_size)
        return self._outlets[m]

    def _bind(self, first: int, stop: int, ids: NDArray[np.int64], outlet: _Outlet) -> onnxruntime.IOBinding:
        """Inputs and outputs of slots first..stop-1; buffers outlive the binding because the runner owns them."""
        binding = self._session.io_binding()
        _bind_input(binding, "input_ids", ids)
        _bind_input(binding, "total_lengths", self._lengths[first:stop])
        _bind_input(binding, "logit_positions", outlet.positions)
        _bind_output(binding, "logits", outlet.logits[first:stop])
        for name, tensor in self._cache.items():
            _bind_input(binding, f"past.{name}", tensor[first:stop])
            for output in self._outputs[name]:
                _bind_output(binding, output, tensor[first:stop])
        return binding


class _Outlet:
    """Buffers of runs that give logits after the last `m` tokens of each sequence."""

    def __init__(self, slots: int, m: int, vocab_size: int) -> None:
        self.positions = np.arange(-m, 0)
        self.logits = np.zeros((slots, m, vocab_size), np.float32)


def _untouched(shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
    """Zeros that take memory only where they are written, a small page at a time.

    NumPy asks for huge pages, of which the first token of every head would take a whole one: 1.5 GB at once instead of as
    sequences grow.
    """
    pages = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


def _load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change from run to run
    options.log_severity_level = 3
    # Threads spin between the ops of a run, where waking them would cost more than the op, and sleep between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, all of them meaning that the file is unusable
        raise ManifestError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}", "build the engine again"
        ) from error


def _bind_input(binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
