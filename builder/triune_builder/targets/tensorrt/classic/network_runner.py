"""Drives classic graphs as a runner drives their engines, whatever computes them: slots, a cache written in its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import CacheTensor

from ....verify.best import wrong_rows
from .. import graph_files
from ..adapter import TensorRt
from ..interpreter import Interpreter
from .run import DECODE, PREFILL

Arrays = Mapping[str, NDArray[Any]]
Compute = Callable[[Arrays], Arrays]
"""Inputs by name, but for the weights -> outputs by name."""


class ClassicNetwork:
    """See `proof.Network`: of one sequence's tokens, or one token of each of several; more than that no graph takes."""

    def __init__(
        self, computes: Mapping[str, Compute], cache: Sequence[CacheTensor], *, vocab_size: int, capacity: int, slots: int
    ) -> None:
        """
        Args:
            computes: of prefill and of decode.
        """
        self.vocab_size, self.best_errors = vocab_size, 0
        self._computes = computes
        self._cache = {c.name: np.zeros((slots, c.heads, capacity, c.dim), c.dtype) for c in cache}

    def run(
        self, first: int, ids: Sequence[Sequence[int]], starts: Sequence[int], logits: Sequence[int]
    ) -> NDArray[np.float32]:
        """See `proof.Network`."""
        tokens, begin = np.array(ids, np.int32), np.array(starts, np.int32)
        batch, n = tokens.shape
        feeds: dict[str, NDArray[Any]] = {"input_ids": tokens, "positions": begin[:, None] + np.arange(n, dtype=np.int32)}
        kind = DECODE if n == 1 else PREFILL
        if kind == DECODE:
            feeds["sequences"] = np.arange(batch, dtype=np.int32)
        else:
            assert batch == 1, f"{n} tokens of {batch} sequences"
            feeds["logit_positions"] = np.array(logits, np.int32)
        pools = {name: pool[first : first + batch] for name, pool in self._cache.items()}
        found = self._computes[kind](feeds | {f"past.{name}": pool for name, pool in pools.items()})
        for name, pool in pools.items():
            pool[...] = found[f"present.{name}"]
        rows = np.asarray(found["logits"], np.float32).reshape(batch, -1, self.vocab_size)
        best = [np.asarray(found[name]).reshape(batch, -1) for name in ("best_tokens", "best_logits")]
        self.best_errors += wrong_rows(rows, best[0].astype(np.int64), best[1].astype(np.float32))
        return rows

    def forget(self, first: int, stop: int) -> None:
        """Fill slots with large numbers, as an earlier owner may leave them: none may ever be read."""
        for pool in self._cache.values():
            pool[first:stop] = 1000.0


def interpreted(rt: TensorRt, graph: Path, weights: Arrays) -> Compute:
    """What the parser of `rt` makes of the ONNX file `graph` with these `weights`, computed in NumPy."""
    network = graph_files.parse(rt, graph)
    interpreter = Interpreter(rt.trt, network.definition, {}, weights)

    def compute(feeds: Arrays) -> Arrays:
        assert network.definition is not None  # which must outlive the interpreter
        return interpreter.run(feeds)

    return compute
