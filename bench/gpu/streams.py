"""Many answers at once as their clients hear them: the same prompts and the same figures, whoever serves."""

from __future__ import annotations

import random
import statistics
import string
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

SHARES = (50, 90, 99)  # percentiles that are told
_LETTERS = string.ascii_letters + string.digits


class Heard(Protocol):
    """One answer; times of one clock, in seconds.

    Attributes:
        came: of each piece with tokens: when, and how many.
    """

    @property
    def sent(self) -> float: ...
    @property
    def came(self) -> Sequence[tuple[float, int]]: ...


def draw(chance: random.Random, count: int, letters: int) -> list[str]:
    """Prompts of letters: bytes are all the tokens that a random tokenizer has of text."""
    return ["".join(chance.choices(_LETTERS, k=letters)) for _ in range(count)]


def texts(count: int, letters: int, *, seed: int) -> list[str]:
    """Prompts, equal for equal arguments."""
    return draw(random.Random(f"{seed} {count} {letters}"), count, letters)


def rounds(counts: Sequence[int], repetitions: int, letters: int, answer: int) -> Iterator[tuple[int, list[str], int, bool]]:
    """What is asked, in this order: how many streams at once, their prompts, tokens of each answer, and whether that counts.

    Before the repetitions of each number come short answers, which do not.
    """
    for count in counts:
        for repetition in range(repetitions + 1):
            counts_too = repetition > 0
            yield count, texts(count, letters, seed=repetition), answer if counts_too else min(answer, 16), counts_too


def speed(heard: Sequence[Heard]) -> float:
    """Tokens/s of answers that were asked for at once, prompts included."""
    seconds = max(one.came[-1][0] for one in heard) - min(one.sent for one in heard)
    return sum(tokens for one in heard for _, tokens in one.came) / seconds


def figures(runs: Sequence[Sequence[Heard]]) -> dict[str, Any]:
    """Of repetitions of one number of streams: tokens/s of each, and percentiles of all their answers.

    `between_pieces_ms` is what a client waits between two pieces, `a_token_ms` what a token takes after the first.
    """
    answers = [one for heard in runs for one in heard]
    between = [later - earlier for one in answers for (earlier, _), (later, _) in pairwise(one.came)]
    each = [
        (one.came[-1][0] - one.came[0][0]) / tokens for one in answers if (tokens := sum(count for _, count in one.came[1:]))
    ]
    return {
        "tokens_per_s": [round(speed(heard), 1) for heard in runs],
        "first_token_ms": _percentiles([one.came[0][0] - one.sent for one in answers]),
        "between_pieces_ms": _percentiles(between),
        "a_token_ms": _percentiles(each),
        "pieces": sum(len(one.came) for one in answers),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In ms."""
    if len(seconds) < 2:
        return {f"p{share}": round(1e3 * one, 2) for one in seconds for share in SHARES}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{share}": round(1e3 * cuts[share - 1], 2) for share in SHARES}
