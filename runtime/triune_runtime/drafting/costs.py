"""What steps take, learned while serving, and which drafts are worth it. Plain numbers; no model, no sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_NEW = 0.1  # weight of the latest time
_WILD = 3.0  # times the usual: so much of one time counts at most, for the machine may have done something else
_GROWTH = 0.2  # of a step with each further sequence, until it has been seen
# What has not been run is thought cheap, so that it is tried: steps of one sequence that a run with drafts takes, and a guess.
_CHECK, _GUESS = 1.2, 0.1
_RETURN = 0.003  # of the way back to that, with each step in which it is not run: machines and loads change
_EVIDENCE = 3.0  # drafts that the first trust is worth
_FADING = 0.97  # of what is known of a sequence's drafts, with each token: texts change, and what was given up is tried again
_MARGIN = 0.1  # that drafts must promise


@dataclass(slots=True)
class Costs:
    """Seconds of the three kinds of runs."""

    plain: dict[int, float] = field(default_factory=dict)  # sequences -> a step with a token of each
    check: dict[int, float] = field(default_factory=dict)  # sequences -> a token of each and its drafts
    guess: float | None = None  # one draft of a drafter that runs a model

    def ran_plain(self, sequences: int, seconds: float) -> None:
        """A step without drafts."""
        self.plain[sequences] = _learned(self.plain.get(sequences), seconds)
        for number, known in self.check.items():
            self.check[number] += _RETURN * (min(_CHECK * self.plain_s(number), known) - known)
        if self.guess:
            self.guess += _RETURN * (min(_GUESS * self.plain_s(1), self.guess) - self.guess)

    def ran_check(self, sequences: int, seconds: float) -> None:
        """A run with drafts of so many sequences."""
        self.check[sequences] = _learned(self.check.get(sequences), seconds)

    def ran_guess(self, seconds: float) -> None:
        """One draft was made."""
        self.guess = _learned(self.guess, seconds)

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return any(seconds > 0 for seconds in self.plain.values())

    def plain_s(self, sequences: int) -> float:
        """Of a step without drafts; 0 for none."""
        return _scaled(self.plain, sequences)

    def check_s(self, sequences: int) -> float:
        """Of a run with drafts; 0 for none."""
        return _scaled(self.check, sequences) if self.check else _CHECK * self.plain_s(sequences)

    def guess_s(self) -> float:
        """Of a draft by a drafter that runs a model."""
        return self.guess or _GUESS * self.plain_s(1)


def _scaled(known: Mapping[int, float], sequences: int) -> float:
    """By what is known of the nearest number of sequences."""
    if not sequences:
        return 0.0
    near = min(known, key=lambda n: (abs(n - sequences), n))
    return known[near] * (1 + _GROWTH * (sequences - 1)) / (1 + _GROWTH * (near - 1))


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
        offers: (tokens expected, seconds to guess them) of each, best first.
    """
    best, best_value = 0, -sequences * math.log(costs.plain_s(sequences)) + _MARGIN * sequences
    gained = spent = 0.0
    for taken, (tokens, seconds) in enumerate(offers, start=1):
        gained += math.log(tokens)
        spent += seconds
        seconds = spent + costs.check_s(taken) + costs.plain_s(sequences - taken)
        value = gained - sequences * math.log(seconds)
        if value > best_value:
            best, best_value = taken, value
    return best
