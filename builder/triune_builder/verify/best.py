"""Compares the best tokens that an engine finds itself with the logits of the same run. Judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits
from triune_runtime.runner import Runner, Want, Work

_SEQUENCES = 4
_STEPS = 4  # of decoding as a batch: the first one, a recorded one, and replays


def wrong_rows(logits: NDArray[np.float32], tokens: NDArray[Any], best_logits: NDArray[Any]) -> int:
    """How many rows of `logits` [..., vocab] have another highest logit, or another first token with it."""
    highest = logits.max(-1)
    first = np.argmax(logits == highest[..., None], -1)
    return int(np.sum((tokens != first) | (best_logits != highest)))


def best_errors(runner: Runner, limits: Limits, text: Sequence[int]) -> int | None:
    """Rows of prompts and of ragged decoding whose best token is not that of their logits; None: the engine finds none."""
    if "greedy" not in runner.chooses:
        return None
    wrong, count = 0, min(_SEQUENCES, limits.max_sequences)
    longest = max(1, min(limits.prefill_chunk, limits.max_length - _STEPS, len(text) - _STEPS))
    lengths = [max(1, longest - slot) for slot in range(count)]
    works = [[Work(slot, 0, tuple(text[:length]))] for slot, length in enumerate(lengths)]
    works += [[Work(slot, n + step, (text[n + step],)) for slot, n in enumerate(lengths)] for step in range(_STEPS)]
    for work in works:
        made = runner.run_rows(work)
        if made.best is None:
            return None
        wrong += wrong_rows(made.logits, made.best.tokens, made.best.logits)
        alone = runner.run_rows([Work(item.slot, item.start, item.tokens, wants=Want.TOKEN) for item in work])
        assert alone.best is not None, "the engine found tokens a moment ago"
        wrong += int(np.sum(alone.best.tokens != made.best.tokens))
    return wrong
