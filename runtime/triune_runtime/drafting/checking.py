"""Runs a step's slices, and chooses tokens while drafts are what the sampler chooses. Times runs; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from collections.abc import Set as Abstract

import numpy as np
from numpy.typing import NDArray

from ..groups import prompt_copies, sampled
from ..request import TokenLogprob
from ..runners import Runner, Work
from ..sampler import Sampler, SamplingError
from ..scheduler import Slice, Step
from .speculator import Speculator

Chosen = dict[int, list[TokenLogprob]]  # sequence key -> its next tokens


class Checker:
    """A runner, a sampler and a speculator at work on a step."""

    def __init__(self, runner: Runner, sampler: Sampler, speculator: Speculator, clock: Callable[[], float]) -> None:
        self._runner, self._sampler, self._speculator, self._clock = runner, sampler, speculator, clock

    def compute(self, step: Step, endings: Callable[[int], Abstract[int]]) -> Chosen:
        """Run a step and choose the next tokens; without sequences whose logits are no numbers.

        Args:
            endings: the tokens after which the answer of a sequence key is over.
        """
        for move in step.moves:
            self._runner.copy_slot(move.source, move.target, move.length)
            self._speculator.moved(move)
        plain = [part for part in step.slices if not part.drafts]
        chosen = self._plain(plain) if plain else {}
        if drafted := [part for part in step.slices if part.drafts]:
            chosen |= self._checked(drafted, endings)
        return chosen

    def _plain(self, parts: Items[Slice]) -> Chosen:
        began = self._clock()
        logits = self._runner.run([_work(part) for part in parts])
        for move in prompt_copies(parts):
            self._runner.copy_slot(move.source, move.target, move.length)
        rows, keys = sampled(parts)
        try:
            chosen = self._sample(keys, _rows(logits, rows))
        except SamplingError as error:
            usable = [i for i, key in enumerate(keys) if key not in error.keys]
            chosen = self._sample([keys[i] for i in usable], logits[[rows[i] for i in usable]])
        if all(part.length == 1 for part in parts):
            self._speculator.costs.ran_plain(len(parts), self._clock() - began)
        return chosen

    def _checked(self, parts: Items[Slice], endings: Callable[[int], Abstract[int]]) -> Chosen:
        began, chosen, row = self._clock(), Chosen(), 0
        logits = self._runner.run([_work(part) for part in parts])
        for part in parts:
            tokens = self._accept(part, logits[row : row + part.length], endings(part.sequence.key))
            row += part.length
            if tokens:
                chosen[part.sequence.key] = tokens
        self._speculator.costs.ran_check(len(parts), self._clock() - began)
        return chosen

    def _accept(self, part: Slice, logits: NDArray[np.float32], endings: Abstract[int]) -> list[TokenLogprob]:
        """Tokens up to the first that is not what was guessed: with it the guesses behind it are void."""
        key, tokens, constraint = part.sequence.key, list[TokenLogprob](), part.sequence.request.constraint
        for row, draft in zip(logits, (*part.drafts, None), strict=True):
            try:
                tokens += self._sampler.sample([key], row[None])
            except SamplingError:  # what came before it counts; the next step meets these logits first
                break
            if tokens[-1].token_id != draft or draft in endings or (constraint is not None and constraint.finished):
                break
        self._speculator.checked(key, len(part.drafts), max(0, len(tokens) - 1))
        return tokens

    def _sample(self, keys: Items[int], logits: NDArray[np.float32]) -> Chosen:
        return {key: [token] for key, token in zip(keys, self._sampler.sample(keys, logits), strict=True)}


def _work(part: Slice) -> Work:
    assert part.sequence.slot is not None, "a sequence without a slot cannot run"
    own = part.sequence.tokens[part.start : part.start + part.length - len(part.drafts)]
    return Work(part.sequence.slot, part.start, (*own, *part.drafts), len(part.drafts))


def _rows(logits: NDArray[np.float32], rows: list[int]) -> NDArray[np.float32]:
    """`logits[rows]`, without a copy where that is all of them: they are megabytes."""
    return logits if rows == list(range(len(logits))) else logits[rows]
