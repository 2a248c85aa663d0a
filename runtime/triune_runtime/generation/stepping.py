"""A step's slices -> work for a runner; what comes back -> tokens: as the sampler chooses, and drafts while it chooses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from collections.abc import Set as Abstract
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..request import TokenLogprob
from ..runner import Flight, Order, Rows, Runner, Want, Work
from ..sampling.columns import Columns
from ..sampling.host import score
from ..sampling.sampler import Sampler, SamplingError
from .holding import PATIENCE_S
from .sequence import Sequence
from .step import Slice, Step

_NO_DRAFTS: Mapping[int, tuple[int, ...]] = {}
_TOKEN = Want.TOKEN  # an enumeration's member is slow to find
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
    """A step that is being computed: its plain slices in flight, the others to follow one run after the other."""

    step: Step
    plain: list[Slice]  # neither drafts nor scores
    work: list[Work]  # of the plain ones
    flight: Flight | None  # likewise
    orders: tuple[Order, ...]  # that are still to be given
    began: float

    @property
    def drafted(self) -> list[Slice]:
        """The slices with drafts."""
        return [part for part in self.step.slices if part.drafts] if len(self.plain) < len(self.step.slices) else []

    @property
    def scored(self) -> list[Slice]:
        """The slices of prompts whose log probabilities are wanted."""
        return [part for part in self.step.slices if part.scored] if len(self.plain) < len(self.step.slices) else []


@dataclass(frozen=True, slots=True)
class Chosen:
    """By sequence key the next tokens, and the log probabilities of those that want them."""

    tokens: dict[int, Items[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)  # who should have got a token, but none can be chosen

    def add(self, keys: Items[int], tokens: Items[int], logprobs: Mapping[int, TokenLogprob]) -> None:
        """One token for each of `keys`."""
        self.tokens.update(zip(keys, zip(tokens, strict=True), strict=True))
        for key, entry in logprobs.items():
            self.logprobs[key] = [entry]


class Stepper:
    """A runner, a sampler and those who draft at work on steps."""

    def __init__(self, runner: Runner, sampler: Sampler, drafts: Drafts, clock: Callable[[], float]) -> None:
        self._runner, self._sampler, self._drafts, self._clock = runner, sampler, drafts, clock
        self._chooses = runner.chooses
        self._draws = bool(runner.chooses - {"greedy"})

    def launch(self, step: Step) -> Launched:
        """Begin to compute a step."""
        began = self._clock()
        plain = [part for part in step.slices if not (part.drafts or part.scored)]
        work = [self._fed(part) if part.fed else self._work(part) for part in plain]
        if not plain:
            return Launched(step, plain, work, None, step.orders, began)
        return Launched(step, plain, work, self._runner.launch(work, step.orders, self._columns(plain)), (), began)

    def land(self, launched: Launched, endings: Callable[[int], Abstract[int]]) -> Chosen:
        """Wait for a step and choose the next tokens; without sequences whose logits are no numbers.

        Args:
            endings: the tokens after which the answer of a sequence key is over.
        """
        chosen, plain = Chosen(), launched.plain
        if launched.flight is not None:
            self._choose(launched, launched.flight.collect(), chosen)
            if all(part.length == 1 for part in plain):
                self._drafts.ran_plain(len(plain), self._clock() - launched.began)
        orders = launched.orders
        if drafted := launched.drafted:
            self._check(drafted, orders, endings, chosen)
            orders = ()
        for part in launched.scored:
            self._score(part, self._runner.launch([self._work(part)], orders).collect(), chosen)
            orders = ()
        return chosen

    def _columns(self, parts: Items[Slice]) -> Columns | None:
        """How the runner is to choose the tokens of these, if it draws any."""
        if not self._draws or self._sampler.simple:
            return None
        # What this step chooses is counted already; what steps in flight choose comes before it.
        ahead = np.array([max(part.sequence.unknown - 1, 0) for part in parts])
        return self._sampler.columns([part.sequence.request.key for part in parts], ahead)

    def _choose(self, launched: Launched, made: Rows, chosen: Chosen) -> None:
        keys, rows = list[int](), list[int]()
        for row, part in enumerate(launched.plain):
            if part.samples:
                for taker in part.takers if part.siblings else (part.sequence,):
                    if taker.slot is not None and taker.turn == part.turn:
                        keys.append(taker.request.key)
                        rows.append(row)
        at = None if len(rows) == len(launched.work) and not any(part.siblings for part in launched.plain) else rows
        drawn = None
        if self._draws and not self._sampler.simple:
            drawn = np.array([launched.work[row].wants is Want.TOKEN for row in rows])
        self._sample(keys, made, rows, chosen, at=at, drawn=drawn)

    def _sample(
        self,
        keys: list[int],
        made: Rows,
        rows: list[int],
        chosen: Chosen,
        *,
        at: list[int] | None,
        drawn: NDArray[np.bool_] | None = None,
    ) -> None:
        """A token for each of `keys`, from its row of those made."""
        if not keys:
            return
        try:
            chosen.add(keys, *self._sampler.sample(keys, made, at, drawn))
        except SamplingError as error:
            chosen.failed.extend(error.keys)
            if usable := [i for i, key in enumerate(keys) if key not in error.keys]:
                keys, rows = [keys[i] for i in usable], [rows[i] for i in usable]
                chosen.add(keys, *self._sampler.sample(keys, made, rows, None if drawn is None else drawn[usable]))

    def _score(self, part: Slice, made: Rows, chosen: Chosen) -> None:
        """Log probabilities of a prompt's tokens, each from the row before it, and after its last one the answer's first."""
        sequence, prompt = part.sequence, part.sequence.request.prompt
        known = len(sequence.scores) - part.start  # rows that were scored before the sequence lost its slot
        following = prompt[part.start + 1 : part.start + 1 + part.length]
        if len(following) > known:
            wanted = sequence.request.params.prompt_logprobs or 0
            try:
                sequence.scores += score(made.logits[known : len(following)], following[known:], wanted)
            except FloatingPointError:
                chosen.failed.extend(member.key for member in (*part.takers, *sequence.siblings))
                return
        if part.samples:
            keys = [taker.key for taker in part.takers if part.counts_for(taker)]
            rows = [part.length - 1] * len(keys)
            self._sample(keys, made, rows, chosen, at=rows)

    def _check(
        self,
        parts: Items[Slice],
        orders: tuple[Order, ...],
        endings: Callable[[int], Abstract[int]],
        chosen: Chosen,
    ) -> None:
        began, row = self._clock(), 0
        made = self._runner.launch([self._work(part) for part in parts], orders).collect()
        for part in parts:
            self._accept(part, made, row, endings(part.sequence.key), chosen)
            row += part.length
        self._drafts.ran_check(len(parts), self._clock() - began)

    def _accept(self, part: Slice, made: Rows, first: int, endings: Abstract[int], chosen: Chosen) -> None:
        """Tokens up to the first that is not what was guessed: with it the guesses behind it are void.

        Args:
            first: where the rows of `part` begin in `made`.
        """
        key, accepted, entries, until = part.sequence.key, list[int](), list[TokenLogprob](), time.monotonic() + PATIENCE_S
        for row, draft in enumerate((*part.drafts, None), first):
            try:
                tokens, logprobs = self._sampler.sample([key], made, [row])
            except SamplingError:  # what came before it counts; the next step meets these logits first
                break
            accepted += tokens
            entries += logprobs.values()
            if tokens[0] != draft or draft in endings or self._sampler.settle((key,), until) or self._sampler.complete(key):
                break
        self._drafts.checked(key, len(part.drafts), max(0, len(accepted) - 1))
        if not accepted:
            chosen.failed.append(key)
            return
        chosen.tokens[key] = accepted
        if entries:
            chosen.logprobs[key] = entries

    @staticmethod
    def _fed(part: Slice) -> Work:
        """Of a sequence that `overlaps`: the runner chooses its tokens, whatever they are."""
        slot = part.sequence.slot
        assert slot is not None, "a sequence without a slot cannot run"
        return Work(slot, part.start, _UNKNOWN, 0, _TOKEN, True)

    def _work(self, part: Slice) -> Work:
        sequence, drafts = part.sequence, part.drafts
        slot = sequence.slot
        assert slot is not None, "a sequence without a slot cannot run"
        if part.scored:
            return Work(slot, part.start, tuple(sequence.tokens[part.start : part.start + part.length]), scored=True)
        wants = self._wants(part) if part.samples else Want.NOTHING
        if not drafts and part.length == 1:
            return Work(slot, part.start, (sequence.tokens[part.start],), 0, wants)
        own = sequence.tokens[part.start : part.start + part.length - len(drafts)]
        return Work(slot, part.start, (*own, *drafts), len(drafts), wants)

    def _wants(self, part: Slice) -> Want:
        """A token, if the runner can choose it, and it is the same for all who take it: the best one. Else logits."""
        chooses, chosen_by = self._chooses, self._sampler.chosen_by
        if not chooses:
            return Want.LOGITS
        if not part.siblings:
            return Want.TOKEN if chosen_by(part.sequence.request.key, chooses, len(part.drafts)) else Want.LOGITS
        theirs = all(chosen_by(taker.request.key, chooses & {"greedy"}) for taker in part.takers)
        return Want.TOKEN if theirs else Want.LOGITS
