"""What a model loses on texts, computed in float by the NumPy reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triune_builder.verify import reference
from triune_builder.verify.measure import log_softmax


def token_losses(config: Mapping[str, Any], weights: Mapping[str, Any], windows: Sequence[Sequence[int]]) -> list[list[float]]:
    """-log p, in nats, of every token but the first of each window of token ids, which is read from an empty cache.

    Raises:
        BuildError: as `reference.score`.
    """
    found: list[list[float]] = [[] for _ in windows]
    for block in reference.score(config, weights, [ids[:-1] for ids in windows]):
        followers = np.asarray(windows[block.text])[block.positions + 1]
        found[block.text] += (-log_softmax(block.logits)[np.arange(len(followers)), followers]).tolist()
    return found
