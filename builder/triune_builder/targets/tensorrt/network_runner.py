"""Drives an interpreted TensorRT network as a runner drives an engine: slots, profiles, a cache written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from ...verify.best import wrong_rows
from .interpreter import Interpreter

Logits = NDArray[np.float32]


class NetworkRunner:
    """Runs of one slot, or of the first few as a batch, within the profiles that the engine is built with."""

    def __init__(self, interpreter: Interpreter, network: Any, manifest: EngineManifest, *, slots: int | None = None) -> None:
        """
        Args:
            network: what the interpreter's network points into; kept.
            slots: of memory; by default as many as the engine's limits say.
        """
        plan = TensorRtPlan.of(manifest)
        self.vocab_size = manifest.vocab_size
        self.profiles = {p.name: p for p in plan.profiles}
        self.best_errors = 0 if plan.best_tokens else None  # see `Verification`; of all runs so far
        self._interpreter, self._network = interpreter, network
        count = slots or manifest.limits.max_sequences
        self._cache = {
            f"past.{c.name}": np.zeros((count, c.heads, plan.capacity, c.dim), _dtype(c.dtype)) for c in manifest.cache
        }

    def run(self, first: int, ids: Sequence[Sequence[int]], starts: Sequence[int], logits: Sequence[int]) -> Logits:
        """Logits [batch, m, vocab] at positions `logits` of the new tokens `ids` [batch, n] of the slots from `first` on.

        Args:
            starts: tokens that each slot holds.
        """
        tokens, begin = np.array(ids, np.int64), np.array(starts, np.int64)
        batch, n = tokens.shape
        assert any(_fits(p, batch, n, len(logits)) for p in self.profiles.values()), (
            f"no profile for {batch} x {n}, {len(logits)} logits"
        )
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": tokens,
            "positions": begin[:, None] + np.arange(n),
            "starts": begin,
            "logit_positions": np.array(logits, np.int64),
        }
        found = self._interpreter.run(feeds | {name: pool[first : first + batch] for name, pool in self._cache.items()})
        rows = np.asarray(found["logits"], np.float32)
        if self.best_errors is not None:
            self.best_errors += wrong_rows(rows, found["best_tokens"], found["best_logits"])
        return rows

    def forget(self, first: int, stop: int) -> None:
        """Fill slots with large numbers, as an earlier owner may leave them: none may ever be read."""
        for pool in self._cache.values():
            pool[first:stop] = 1000.0


def _fits(profile: Profile, batch: int, tokens: int, logits: int) -> bool:
    ranges = ((profile.batch, batch), (profile.tokens, tokens), (profile.logits, logits))
    return all(least <= size <= most for (least, _, most), size in ranges)


def _dtype(name: str) -> Any:
    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
