"""What an engine in halves is to compute, by others than who lowers or runs it, and how far something is from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_builder.graph.export import GraphBundle
from triune_builder.verify import reference

from .engines import float_logits
from .tiny_llama import FakeCheckpoint


def definition(checkpoint: FakeCheckpoint, quantized: GraphBundle | None, folder: Path) -> Callable[[list[int]], Any]:
    """Logits after a whole history: of float weights by the NumPy reference, of quantized ones by their own float graph.

    Args:
        quantized: the graph before it is lowered; None: the weights are not quantized.
    """
    if quantized is None:
        return lambda read: next(reference.score(checkpoint.config, checkpoint.weights, [read], [[len(read) - 1]])).logits[0]
    (folder / "plain").mkdir()
    return lambda read: float_logits(quantized, folder / "plain", [read])


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """max |found - expected| / max |expected|."""
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())
