"""Runs a step's slices, and chooses tokens while drafts are what the sampler chooses. Times runs; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from collections.abc import Set as Abstract

from ..generation.groups import prompt_copies, sampled
from ..generation.scheduler import Slice, Step
from ..request import TokenLogprob
from ..runner import Rows, Runner, Work, run_rows
from ..sampling.host import Sampler, SamplingError
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
        made = run_rows(self._runner, [self._work(part) for part in parts])
        for move in prompt_copies(parts):
            self._runner.copy_slot(move.source, move.target, move.length)
        rows, keys = sampled(parts)
        try:
            chosen = self._sample(keys, made, rows)
        except SamplingError as error:
            usable = [i for i, key in enumerate(keys) if key not in error.keys]
            chosen = self._sample([keys[i] for i in usable], made, [rows[i] for i in usable])
        if all(part.length == 1 for part in parts):
            self._speculator.costs.ran_plain(len(parts), self._clock() - began)
        return chosen

    def _checked(self, parts: Items[Slice], endings: Callable[[int], Abstract[int]]) -> Chosen:
        began, chosen, row = self._clock(), Chosen(), 0
        made = run_rows(self._runner, [self._work(part) for part in parts])
        for part in parts:
            tokens = self._accept(part, made, row, endings(part.sequence.key))
            row += part.length
            if tokens:
                chosen[part.sequence.key] = tokens
        self._speculator.costs.ran_check(len(parts), self._clock() - began)
        return chosen

    def _accept(self, part: Slice, made: Rows, first: int, endings: Abstract[int]) -> list[TokenLogprob]:
        """Tokens up to the first that is not what was guessed: with it the guesses behind it are void.

        Args:
            first: where the rows of `part` begin in `made`.
        """
        key, tokens, constraint = part.sequence.key, list[TokenLogprob](), part.sequence.request.constraint
        for row, draft in enumerate((*part.drafts, None), first):
            try:
                tokens += self._sampler.sample([key], made, [row])
            except SamplingError:  # what came before it counts; the next step meets these logits first
                break
            if tokens[-1].token_id != draft or draft in endings or (constraint is not None and constraint.finished):
                break
        self._speculator.checked(key, len(part.drafts), max(0, len(tokens) - 1))
        return tokens

    def _sample(self, keys: Items[int], made: Rows, at: Items[int]) -> Chosen:
        return {key: [token] for key, token in zip(keys, self._sampler.sample(keys, made, at), strict=True)}

    def _work(self, part: Slice) -> Work:
        sequence, drafts = part.sequence, part.drafts
        assert sequence.slot is not None, "a sequence without a slot cannot run"
        own = sequence.tokens[part.start : part.start + part.length - len(drafts)]
        reads = part.samples and any(self._sampler.reads_logits(member.key, len(drafts)) for member in sequence.members)
        return Work(sequence.slot, part.start, (*own, *drafts), len(drafts), logits=reads)
