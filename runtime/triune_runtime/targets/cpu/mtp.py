"""The layer of multi-token prediction with ONNX Runtime on the CPU, and the hidden states that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...manifest import EngineManifest, MtpEngine
from .plan import computes_in_tiles
from .session import bind_input, bind_output, load, release, untouched

Array = NDArray[np.float32]


class HiddenStates:
    """What the engine made of the tokens of its latest runs: where it writes that, and which slot's it is."""

    def __init__(self, slots: int, checked: int, size: int) -> None:
        self.singles = np.zeros((slots, 1, size), np.float32)  # one token a slot
        self.checked = np.zeros((checked * slots, 1, size), np.float32)  # tokens and their drafts
        self._size = size
        self._latest: dict[int, tuple[int, Array]] = {}

    def empty(self, tokens: int) -> Array:
        """Room [1, tokens, hidden size] for a run of that many."""
        return np.empty((1, tokens, self._size), np.float32)

    def note(self, slot: int, start: int, hidden: Array) -> None:
        """`hidden` [tokens, hidden size] is of the tokens from `start` on."""
        self._latest[slot] = start, hidden

    def latest(self, slot: int) -> tuple[int, Array]:
        return self._latest[slot]


class OrtMtp:
    """See `Mtp`."""

    def __init__(self, mtp: MtpEngine, seen: HiddenStates, manifest: EngineManifest, folder: Path, threads: int) -> None:
        """
        Raises:
            ManifestError: the graph cannot be loaded.
        """
        self._session = load(folder / mtp.engine, threads, tiles=computes_in_tiles(manifest, threads))
        self._seen = seen
        slots, longest = manifest.limits.max_sequences, manifest.limits.max_length
        self._cache = {c.name: untouched((slots, c.heads, longest, c.dim), c.dtype) for c in mtp.cache}
        self._outputs = {c.name: c.output_names for c in mtp.cache}
        self._positions, self._length = np.array([-1]), np.zeros(1, np.int32)
        self._logits = np.zeros((1, 1, manifest.vocab_size), np.float32)

    def hidden(self, slot: int) -> tuple[int, Array]:
        """See `Mtp.hidden`."""
        return self._seen.latest(slot)

    def predict(self, slot: int, start: int, hidden: Array, tokens: Sequence[int]) -> tuple[Array, Array]:
        """See `Mtp.predict`."""
        assert len(hidden) == len(tokens), f"{len(hidden)} hidden states for {len(tokens)} tokens"
        ids, states = np.array([tokens], np.int64), np.ascontiguousarray(hidden[None])
        after = self._seen.empty(len(tokens))
        self._length[0] = start + len(tokens)
        binding = self._session.io_binding()
        bind_input(binding, "input_ids", ids)
        bind_input(binding, "hidden", states)
        bind_input(binding, "total_lengths", self._length)
        bind_input(binding, "logit_positions", self._positions)
        bind_output(binding, "logits", self._logits)
        bind_output(binding, "next_hidden", after)
        for name, tensor in self._cache.items():
            bind_input(binding, f"past.{name}", tensor[slot : slot + 1])
            for output in self._outputs[name]:
                bind_output(binding, output, tensor[slot : slot + 1])
        self._session.run_with_iobinding(binding)
        return self._logits[0, 0].copy(), after[0, -1:]

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions' KV from slot `source` to slot `target`."""
        for tensor in self._cache.values():
            tensor[target, :, :length] = tensor[source, :, :length]

    def give_back(self, slot: int, length: int) -> None:
        """Nobody needs what lies in `slot` behind its first `length` positions."""
        for tensor in self._cache.values():
            release(tensor[slot], length)
