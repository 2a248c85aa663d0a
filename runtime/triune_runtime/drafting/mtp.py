"""Guesses by the model's layer of multi-token prediction. Keeps its KV in step with the tokens that were really chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..generation.sequence import Sequence
from ..runner import Mtp

Array = NDArray[np.float32]
Guess = Callable[[int, Array, int], int]  # (sequence key, logits, how far ahead) -> token; see `Sampler.guess`


@dataclass(slots=True)
class _State:
    """What of a sequence the layer's cache holds: its tokens from `base` to `held`, and what came of the last of them.

    The cache counts positions from `base`: rotations are relative, so a cache that begins late is only a shorter memory.
    """

    base: int
    held: int
    logits: Array
    hidden: Array


class MtpDrafter:
    """See `Drafter`."""

    runs_model = True
    trust = 0.8

    def __init__(self, mtp: Mtp, guess: Guess) -> None:
        self._mtp, self._guess = mtp, guess
        self._states: dict[int, _State] = {}

    def follow(self, sequence: Sequence) -> None:
        """See `Drafter.follow`. After a run that was not followed, the layer's memory begins anew."""
        assert sequence.slot is not None, "a sequence without a slot has no hidden states"
        start, hidden = self._mtp.hidden(sequence.slot)
        known, computed = self._states.get(sequence.key), sequence.computed
        if known is not None and known.held == computed:
            return
        assert start < computed <= start + len(hidden), f"hidden states from {start} on of {computed} tokens"
        base = known.base if known is not None and known.held == start else start
        following = sequence.tokens[start + 1 : computed + 1]
        logits, after = self._mtp.predict(sequence.slot, start - base, hidden[: computed - start], following)
        self._states[sequence.key] = _State(base, computed, logits, after)

    def draft(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        """See `Drafter.draft`. Drafts after the first come from the layer's own results; their KV is overwritten later."""
        self.follow(sequence)
        state, slot = self._states[sequence.key], sequence.slot
        assert slot is not None, "a sequence that was followed has a slot"
        drafts = [self._guess(sequence.key, state.logits, 0)]
        hidden = state.hidden
        while len(drafts) < count:
            position = state.held - state.base + len(drafts) - 1
            logits, hidden = self._mtp.predict(slot, position, hidden, drafts[-1:])
            drafts.append(self._guess(sequence.key, logits, len(drafts)))
        return tuple(drafts)

    def forget(self, key: int) -> None:
        """See `Drafter.forget`."""
        self._states.pop(key, None)
