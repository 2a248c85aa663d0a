"""Drives an interpreted CUDA graph as a runner drives an engine: packed steps, and memory in blocks in no order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import EngineManifest

from .interpreter import Interpreter

Logits = NDArray[np.float32]
_DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
}
_FEWEST = 16  # tokens of a block that the op takes
_FOREIGN = 100.0  # what memory holds that nobody wrote: none of it may ever be read


class Item(NamedTuple):
    """Run `tokens` of the sequence `lane`, whose first `start` tokens are in the cache already."""

    lane: int
    start: int
    tokens: tuple[int, ...]


class NetworkRunner:
    """Steps of a few short sequences, all their logits asked for."""

    def __init__(
        self,
        interpreter: Interpreter,
        manifest: EngineManifest,
        *,
        lanes: int = 6,
        longest: int = 64,
        block_tokens: int = _FEWEST,
    ) -> None:
        """
        Args:
            lanes: sequences that can be held.
            longest: tokens of one.
            block_tokens: by default so few that short texts have several blocks each.
        """
        self.vocab_size = manifest.vocab_size
        self._interpreter, self._block, self._each = interpreter, block_tokens, -(-longest // block_tokens)
        blocks = lanes * self._each
        # Blocks in no order, and one left over on each side that no table names.
        order = 1 + np.random.default_rng(7).permutation(blocks)
        self._tables = order.reshape(lanes, self._each).astype(np.int32)
        self.cache = {
            f"past.{c.name}": np.full((blocks + 2, block_tokens, c.heads, c.dim), _FOREIGN, _DTYPES[c.dtype])
            for c in manifest.cache
        }

    def run(self, items: Sequence[Item]) -> list[Logits]:
        """Logits [tokens, vocab] of each item, all of which are one step."""
        logits = self._interpreter.run(self.feeds(items) | self.cache)["logits"]
        return np.split(np.asarray(logits, np.float32), np.cumsum([len(item.tokens) for item in items])[:-1])

    def feeds(self, items: Sequence[Item]) -> dict[str, NDArray[Any]]:
        """The inputs of a step but the cache."""
        lengths = np.array([len(item.tokens) for item in items])
        past = np.array([item.start for item in items], np.int32)
        totals = past + lengths
        return {
            "input_ids": np.array([token for item in items for token in item.tokens], np.int64),
            "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            "past_seqlens": past,
            "block_table": self._table([item.lane for item in items], totals),
            "attention_metadata": np.array([lengths.max(), totals.max(), totals.max()], np.int32),
            "logits_at": np.arange(lengths.sum()),
        }

    def foreign_untouched(self) -> bool:
        """Whether the blocks that no table names hold what they held."""
        return all(bool((pool[[0, -1]] == pool.dtype.type(_FOREIGN)).all()) for pool in self.cache.values())

    def _table(self, lanes: Sequence[int], totals: NDArray[Any]) -> NDArray[np.int32]:
        """Beyond what a sequence needs stands a block of nobody."""
        table = self._tables[list(lanes)].copy()
        table[np.arange(self._each) >= -(-totals[:, None] // self._block)] = 0
        return table
