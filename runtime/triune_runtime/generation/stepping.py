"""A step's slices -> work for a runner; what comes back -> tokens: as the sampler chooses, and drafts while it chooses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from collections.abc import Set as Abstract
from dataclasses import dataclass
from typing import Protocol

from ..request import TokenLogprob
from ..runner import Flight, Order, Rows, Runner, Want, Work
from ..sampling.host import Sampler, SamplingError
from .sequence import Sequence
from .step import Slice, Step

Chosen = dict[int, list[TokenLogprob]]  # sequence key -> its next tokens
_NO_DRAFTS: Mapping[int, tuple[int, ...]] = {}
_UNKNOWN = (0,)  # stands where the runner puts the token that it chose


class Drafts(Protocol):
    """Who guesses the next tokens: see `drafting`. What is guessed changes speed alone, never a token."""

    def propose(self, decoding: Items[Sequence], prefilling: Items[Sequence]) -> Mapping[int, tuple[int, ...]]:
        """Drafts by sequence key, for the step that is about to be planned."""
        ...

    def ran_plain(self, sequences: int, seconds: float) -> None:
        """A step without drafts has run, a token of each sequence."""
        ...

    def ran_check(self, sequences: int, seconds: float) -> None:
        """A run with drafts of so many sequences has ended."""
        ...

    def checked(self, key: int, drafted: int, accepted: int) -> None:
        """Of the drafts of a sequence so many were right."""
        ...

    def forget(self, key: int) -> None:
        """A sequence has ended."""
        ...


class NoDrafts:
    """See `Drafts`: there are none."""

    def propose(self, decoding: Items[Sequence], prefilling: Items[Sequence]) -> Mapping[int, tuple[int, ...]]:
        return _NO_DRAFTS

    def ran_plain(self, sequences: int, seconds: float) -> None: ...
    def ran_check(self, sequences: int, seconds: float) -> None: ...
    def checked(self, key: int, drafted: int, accepted: int) -> None: ...
    def forget(self, key: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Launched:
    """A step that is being computed: its slices without drafts in flight, those with drafts to follow."""

    step: Step
    plain: list[Slice]
    flight: Flight | None  # of the plain ones
    orders: tuple[Order, ...]  # that are still to be given
    began: float


class Stepper:
    """A runner, a sampler and those who draft at work on steps."""

    def __init__(self, runner: Runner, sampler: Sampler, drafts: Drafts, clock: Callable[[], float]) -> None:
        self._runner, self._sampler, self._drafts, self._clock = runner, sampler, drafts, clock

    def launch(self, step: Step) -> Launched:
        """Begin to compute a step."""
        began = self._clock()
        plain = [part for part in step.slices if not part.drafts]
        if not plain:
            return Launched(step, plain, None, step.orders, began)
        flight = self._runner.launch([self._work(part) for part in plain], step.orders)
        return Launched(step, plain, flight, (), began)

    def land(self, launched: Launched, endings: Callable[[int], Abstract[int]]) -> Chosen:
        """Wait for a step and choose the next tokens; without sequences whose logits are no numbers.

        Args:
            endings: the tokens after which the answer of a sequence key is over.
        """
        chosen, plain = Chosen(), launched.plain
        if launched.flight is not None:
            chosen = self._choose(plain, launched.flight.collect())
            if all(part.length == 1 for part in plain):
                self._drafts.ran_plain(len(plain), self._clock() - launched.began)
        if len(plain) < len(launched.step.slices):
            drafted = [part for part in launched.step.slices if part.drafts]
            chosen |= self._check(drafted, launched.orders, endings)
        return chosen

    def _choose(self, parts: Items[Slice], made: Rows) -> Chosen:
        keys, rows = list[int](), list[int]()
        for row, part in enumerate(parts):
            for taker in part.takers if part.samples else ():
                if part.counts_for(taker):
                    keys.append(taker.request.key)
                    rows.append(row)
        try:
            return self._sample(keys, made, rows)
        except SamplingError as error:
            usable = [i for i, key in enumerate(keys) if key not in error.keys]
            return self._sample([keys[i] for i in usable], made, [rows[i] for i in usable])

    def _check(self, parts: Items[Slice], orders: tuple[Order, ...], endings: Callable[[int], Abstract[int]]) -> Chosen:
        began, chosen, row = self._clock(), Chosen(), 0
        made = self._runner.launch([self._work(part) for part in parts], orders).collect()
        for part in parts:
            tokens = self._accept(part, made, row, endings(part.sequence.key))
            row += part.length
            if tokens:
                chosen[part.sequence.key] = tokens
        self._drafts.ran_check(len(parts), self._clock() - began)
        return chosen

    def _accept(self, part: Slice, made: Rows, first: int, endings: Abstract[int]) -> list[TokenLogprob]:
        """Tokens up to the first that is not what was guessed: with it the guesses behind it are void.

        Args:
            first: where the rows of `part` begin in `made`.
        """
        key, tokens = part.sequence.key, list[TokenLogprob]()
        for row, draft in enumerate((*part.drafts, None), first):
            try:
                tokens += self._sampler.sample([key], made, [row])
            except SamplingError:  # what came before it counts; the next step meets these logits first
                break
            if tokens[-1].token_id != draft or draft in endings or self._sampler.complete(key):
                break
        self._drafts.checked(key, len(part.drafts), max(0, len(tokens) - 1))
        return tokens

    def _sample(self, keys: Items[int], made: Rows, at: Items[int]) -> Chosen:
        return {key: [token] for key, token in zip(keys, self._sampler.sample(keys, made, at), strict=True)}

    def _work(self, part: Slice) -> Work:
        sequence, drafts = part.sequence, part.drafts
        assert sequence.slot is not None, "a sequence without a slot cannot run"
        wants = Want.NOTHING
        if part.samples:
            reads = any(self._sampler.reads_logits(taker.request.key, len(drafts)) for taker in part.takers)
            wants = Want.LOGITS if reads else Want.TOKEN
        if part.fed:
            return Work(sequence.slot, part.start, _UNKNOWN, 0, wants, True)
        own = sequence.tokens[part.start : part.start + part.length - len(drafts)]
        return Work(sequence.slot, part.start, (*own, *drafts), len(drafts), wants)
