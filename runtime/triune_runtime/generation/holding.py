"""Sequences that wait for their grammar: what may come next in them is being worked out, and the others go on without them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass

from ..errors import RequestError
from ..request import TokenLogprob
from ..sampling.sampler import Sampler
from .sequence import Sequence

PATIENCE_S = 0.005  # of a step, for all grammars together; with none that took long the last time
_HINT = "simplify it"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was chosen for a sequence and has not been told yet: whether the answer is over with it is not known."""

    sequence: Sequence
    tokens: Items[int]
    logprobs: Items[TokenLogprob]


class Holding:
    """Which sequences wait, each with the tokens that it waits behind."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._held: dict[int, Taken] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def unsettled(self, keys: Iterable[int]) -> set[int]:
        """Those of `keys` that must wait, after a moment's patience."""
        return set(self._sampler.settle(keys, time.monotonic() + PATIENCE_S, only_quick=True))

    def hold(self, taken: Taken) -> None:
        """Let a sequence wait."""
        taken.sequence.held = True
        self._held[taken.sequence.key] = taken

    def forget(self, key: int) -> None:
        """A sequence has ended, if it waits."""
        if (taken := self._held.pop(key, None)) is not None:
            taken.sequence.held = False

    def over(self) -> list[Taken]:
        """Those that need not wait any longer: they go on, or no token can be chosen any more (see `refusal`)."""
        if not self._held:
            return []
        waiting = set(self._sampler.settle(list(self._held), 0.0))
        found = [taken for key, taken in self._held.items() if key not in waiting or self._sampler.error(key)]
        for taken in found:
            self.forget(taken.sequence.key)
        return found

    def rest(self) -> None:
        """Wait a moment for one of them, because there is nothing else to do."""
        self._sampler.settle(list(self._held)[:1], time.monotonic() + PATIENCE_S)

    def refusal(self, sequence: Sequence) -> RequestError | None:
        """Why no token of a sequence can be chosen any more, if its grammar is why."""
        said = self._sampler.error(sequence.key)
        return RequestError(said, _HINT, code="unsupported", param=sequence.request.guide_input or None) if said else None
