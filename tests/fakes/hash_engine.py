"""A TensorRT engine without a model on a device without a GPU: logits are a hash of all that a slot's cache holds.

They are whole numbers, so that several tokens are often the best: which of them its best token is, is told to the engine.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import CacheTensor, EngineManifest
from triune_runtime.runner import Rows, Want, Work
from triune_runtime.targets.device.host import HostDevice, HostEngine
from triune_runtime.targets.device.slot_runner import SlotRunner

from .host_engines import as_tensorrt, with_best

Choose = Callable[[NDArray[np.float32]], int]
CACHE = CacheTensor(name="tokens", heads=1, dim=4)


def lowest(logits: NDArray[np.float32]) -> int:
    """The first of the best tokens, as NumPy chooses."""
    return int(np.flatnonzero(logits == logits.max())[0]) if np.isfinite(logits).all() else 0


def highest(logits: NDArray[np.float32]) -> int:
    """The last of the best tokens, as a kernel may choose."""
    return int(np.flatnonzero(logits == logits.max())[-1]) if np.isfinite(logits).all() else 0


def hashed(tokens: Sequence[int], vocab_size: int, poison: int | None = None) -> NDArray[np.float32]:
    """Logits [vocab_size] after `tokens`; no numbers if the token `poison` is among them."""
    if poison in tokens:
        return np.full(vocab_size, np.nan, np.float32)
    seed = zlib.crc32(repr([int(t) for t in tokens]).encode())
    return np.rint(np.random.default_rng(seed).standard_normal(vocab_size, np.float32))


class HashCompute:
    """What `HostEngine` computes."""

    def __init__(self, vocab_size: int, choose: Choose, poison: int | None = None) -> None:
        self._vocab_size, self._choose, self._poison = vocab_size, choose, poison
        self.calls = 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        ids, starts, cache = inputs["input_ids"], inputs["starts"], inputs["past.tokens"]
        batch, n = ids.shape
        logits = np.empty((batch, len(inputs["logit_positions"]), self._vocab_size), np.float32)
        for row, start in enumerate(starts.tolist()):
            cache[row, 0, start : start + n] = ids[row, :, None]
            for column, position in enumerate(inputs["logit_positions"].tolist()):
                tokens = cache[row, 0, : start + position + 1, 0].astype(int).tolist()
                logits[row, column] = hashed(tokens, self._vocab_size, self._poison)
        tokens = np.array([[self._choose(one) for one in of_row] for of_row in logits], np.int64)
        return with_best(logits, tokens)


class StrictRunner(SlotRunner):
    """Hands out other logits where none are wanted: who reads them all the same is found out by other tokens."""

    def run_rows(self, work: Sequence[Work]) -> Rows:
        made, row = super().run_rows(work), 0
        for item in work:
            if made.best is not None and item.wants is not Want.LOGITS:
                made.logits[row : row + 1 + item.drafts] = np.arange(self.vocab_size)
            row += 1 + item.drafts
        return made


@dataclasses.dataclass
class HashRunner:
    """A slot runner of such an engine, and its parts."""

    runner: SlotRunner
    device: HostDevice
    compute: HashCompute

    @classmethod
    def of(
        cls, manifest: EngineManifest, choose: Choose = lowest, *, best: bool = True, poison: int | None = None
    ) -> HashRunner:
        """Of an engine with the limits and the vocabulary of `manifest`; without `best` it has logits alone."""
        served = as_tensorrt(dataclasses.replace(manifest, cache=(CACHE,)), best_tokens=best)
        device, compute = HostDevice(), HashCompute(manifest.vocab_size, choose, poison)
        return cls(StrictRunner(served, device, HostEngine(served, device, compute)), device, compute)
