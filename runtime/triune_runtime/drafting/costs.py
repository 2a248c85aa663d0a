"""What steps take, learned while serving, and which drafts are worth it. Plain numbers; no model, no sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_NEW = 0.1  # weight of the latest time
_WILD = 3.0  # times the usual: so much of one time counts at most, for the machine may have done something else
_GROWTH = 0.2  # of a step with each further sequence, until it has been seen
_CHECK = 1.5  # steps of one sequence that a run with drafts takes, until it has been seen
_GUESS = 0.4  # and a run of what guesses
_EVIDENCE = 3.0  # drafts that the first trust is worth
_FADING = 0.97  # of what is known of a sequence's drafts, with each token: texts change, and what was given up is tried again
_MARGIN = 0.05  # that drafts must promise


@dataclass(slots=True)
class Costs:
    """Seconds of the three kinds of runs."""

    plain: dict[int, float] = field(default_factory=dict)  # sequences -> a step with a token of each
    check: float | None = None  # a token and its drafts
    guess: float | None = None  # one draft of a drafter that runs a model

    def ran_plain(self, sequences: int, seconds: float) -> None:
        self.plain[sequences] = _learned(self.plain.get(sequences), seconds)

    def ran_check(self, seconds: float) -> None:
        self.check = _learned(self.check, seconds)

    def ran_guess(self, seconds: float) -> None:
        self.guess = _learned(self.guess, seconds)

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return any(seconds > 0 for seconds in self.plain.values())

    def plain_s(self, sequences: int) -> float:
        """Of a step without drafts; 0 for none."""
        if not sequences:
            return 0.0
        near = min(self.plain, key=lambda n: (abs(n - sequences), n))
        return self.plain[near] * (1 + _GROWTH * (sequences - 1)) / (1 + _GROWTH * (near - 1))

    def check_s(self) -> float:
        return self.check or _CHECK * self.plain_s(1)

    def guess_s(self) -> float:
        return self.guess or _GUESS * self.plain_s(1)


def _learned(known: float | None, seconds: float) -> float:
    if not known:
        return seconds
    return known + _NEW * (min(seconds, _WILD * known) - known)


class Record:
    """How one drafter has done in one sequence, separately for its first draft of a run, its second, ..."""

    def __init__(self, trust: float, most: int) -> None:
        """
        Args:
            trust: share of its drafts expected to be right before anything is known.
            most: drafts of a run.
        """
        self._trust = trust
        self._right, self._wrong = [0.0] * most, [0.0] * most

    def fade(self) -> None:
        """A token has come."""
        self._right = [n * _FADING for n in self._right]
        self._wrong = [n * _FADING for n in self._wrong]

    def add(self, drafted: int, accepted: int) -> None:
        """So many drafts were checked; behind the first wrong one nothing is learned."""
        for number in range(accepted):
            self._right[number] += 1
        if accepted < drafted:
            self._wrong[accepted] += 1

    def expected(self, drafts: int) -> float:
        """Tokens that a run with so many drafts gives on average: one, and each draft if all up to it are right."""
        tokens = chance = 1.0
        for right, wrong in zip(self._right[:drafts], self._wrong, strict=False):
            chance *= (right + _EVIDENCE * self._trust) / (right + wrong + _EVIDENCE)
            tokens += chance
        return tokens


def worthwhile(costs: Costs, sequences: int, offers: Sequence[tuple[float, float]]) -> int:
    """How many of `offers`, the first of them, should be run with drafts so that all sequences together fare best.

    The measure is the product of the sequences' speeds: one that gains must gain more than the others lose by waiting for it.

    Args:
        sequences: that decode, at least as many as offers.
        offers: (tokens expected, seconds) of runs with drafts, best first.
    """
    best, best_value = 0, -sequences * math.log(costs.plain_s(sequences)) + _MARGIN * sequences
    gained = spent = 0.0
    for taken, (tokens, seconds) in enumerate(offers, start=1):
        gained += math.log(tokens)
        spent += seconds
        value = gained - sequences * math.log(spent + costs.plain_s(sequences - taken))
        if value > best_value:
            best, best_value = taken, value
    return best
