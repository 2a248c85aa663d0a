"""Decides which sequences get drafts, whose and how many; learns from what comes of them. Runs no model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from ..generation.sequence import Sequence
from ..manifest import EngineManifest
from ..runner import Runner
from ..sampling.sampler import Sampler
from . import Drafter
from .costs import Costs, Record, worthwhile
from .lookup import LookupDrafter
from .mtp import MtpDrafter

MOST_SEQUENCES = 8  # that decode at once and may have drafts: beyond, deciding alone would cost something
_PATIENCE, _REST = 8, 24  # steps in a row in which no draft was worth it, after which only every so many-th looks again


@dataclass(slots=True)
class _Known:
    """One sequence: how each drafter has done, and whose drafts are being checked."""

    records: list[Record]
    drafter: int = 0


@dataclass(slots=True)
class _Offer:
    sequence: Sequence
    drafter: int
    count: int
    tokens: float  # expected of the run
    guess_s: float
    speed: float  # tokens a second, if it ran alone
    drafts: tuple[int, ...] = field(default=())


class Speculator:
    """See `generation.stepping.Drafts`: of all sequences of one engine."""

    def __init__(self, tokens: int, longest: int, drafters: Items[Drafter], clock: Callable[[], float]) -> None:
        """
        Args:
            tokens: of a run that checks drafts, which are one fewer.
            longest: tokens that a slot has room for; a run takes room for all its tokens, however few the drafts are.
            clock: in seconds; one that stands still means that nothing pays.
        """
        self._most, self._longest = tokens - 1, longest
        self._drafters = tuple(drafters)
        self._clock = clock
        self.costs = Costs()
        self._known: dict[int, _Known] = {}
        self._vain = 0  # steps in a row without drafts

    @classmethod
    def of_engine(cls, manifest: EngineManifest, runner: Runner, sampler: Sampler, clock: Callable[[], float]) -> Speculator:
        """With all drafters that the engine can have; none where it cannot check drafts."""
        if manifest.speculation is None or runner.depth:  # drafts are made of tokens that the host must know first
            return cls(1, manifest.limits.max_length, (), clock)
        drafters: list[Drafter] = [LookupDrafter()]
        if runner.mtp is not None:
            drafters.append(MtpDrafter(runner.mtp, sampler.guess))
        return cls(manifest.speculation.tokens, manifest.limits.max_length, drafters, clock)

    def propose(self, decoding: Items[Sequence], prefilling: Items[Sequence]) -> dict[int, tuple[int, ...]]:
        """Drafts by sequence key, for the step that is about to be planned.

        Args:
            decoding, prefilling: the sequences as the last step left them.
        """
        if not self._drafters or not self.costs.known or not 0 < len(decoding) + len(prefilling) <= MOST_SEQUENCES:
            return {}
        self._follow(prefilling, len(decoding) + len(prefilling))
        self._vain += 1
        if self._vain > _PATIENCE and self._vain % _REST:  # looking costs a small model as much as drafts would gain
            return {}
        offers = [offer for s in decoding if (offer := self._offer(s)) is not None]
        offers.sort(key=lambda offer: -offer.speed)
        taken = worthwhile(self.costs, len(decoding), [(o.tokens, o.guess_s) for o in offers]) if offers else 0
        if taken:
            self._vain = 0
        return {o.sequence.key: drafts for o in offers[:taken] if (drafts := self._drafts(o))}

    def ran_plain(self, sequences: int, seconds: float) -> None:
        """A step without drafts has run, a token of each sequence."""
        self.costs.ran_plain(sequences, seconds)

    def ran_check(self, sequences: int, seconds: float) -> None:
        """A run with drafts of so many sequences has ended."""
        self.costs.ran_check(sequences, seconds)

    def checked(self, key: int, drafted: int, accepted: int) -> None:
        """A run with drafts has ended."""
        if (known := self._known.get(key)) is not None:
            known.records[known.drafter].add(drafted, accepted)

    def forget(self, key: int) -> None:
        """A sequence has ended."""
        self._known.pop(key, None)
        for drafter in self._drafters:
            drafter.forget(key)

    def _follow(self, prefilling: Iterable[Sequence], sequences: int) -> None:
        """Let drafters that run a model read prompts, where their drafts could pay."""
        for drafter in self._drafters:
            if drafter.runs_model:
                best = 1.0 + self._most, self._most * self.costs.guess_s()
                if worthwhile(self.costs, sequences, [best] * sequences):
                    for sequence in prefilling:
                        if self._room(sequence) > 0 and sequence.computed:
                            drafter.follow(sequence)

    def _room(self, sequence: Sequence) -> int:
        """The most drafts that can be of use."""
        if sequence.computed + 1 + self._most > self._longest:
            return 0
        asked, left = sequence.request.params.max_drafts, sequence.max_tokens - sequence.generated - 1
        return min(self._most, left, self._most if asked is None else asked)

    def _offer(self, sequence: Sequence) -> _Offer | None:
        """The drafts that promise the most of a sequence's time."""
        room = self._room(sequence)
        if room < 1:
            return None
        known = self._known.get(sequence.key)
        if known is None:
            known = self._known[sequence.key] = _Known([Record(drafter.trust, self._most) for drafter in self._drafters])
        best: _Offer | None = None
        for number, (drafter, record) in enumerate(zip(self._drafters, known.records, strict=True)):
            record.fade()
            drafts: tuple[int, ...] = ()
            if not drafter.runs_model and not (drafts := drafter.draft(sequence, room)):
                continue
            each_s = self.costs.guess_s() if drafter.runs_model else 0.0
            for count in range(1, room + 1) if drafter.runs_model else (len(drafts),):
                tokens, guess_s = record.expected(count), count * each_s
                speed = tokens / (self.costs.check_s(1) + guess_s)
                offer = _Offer(sequence, number, count, tokens, guess_s, speed, drafts)
                if best is None or offer.speed > best.speed:
                    best = offer
        return best

    def _drafts(self, offer: _Offer) -> tuple[int, ...]:
        """The drafts of an offer that was taken."""
        drafter = self._drafters[offer.drafter]
        self._known[offer.sequence.key].drafter = offer.drafter
        if not drafter.runs_model:
            return offer.drafts
        began = self._clock()
        drafts = drafter.draft(offer.sequence, offer.count)
        if drafts:
            self.costs.ran_guess((self._clock() - began) / len(drafts))
        return drafts
