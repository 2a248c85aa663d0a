"""Whether an answer is right: its last numbers, and for a comparison its verdict. Knows nothing of engines."""

from __future__ import annotations

import re

from .examples import Example, Expected

_NUMBER = re.compile(r"(?<![\d)])-?\d+")
_YES = re.compile(r"^\s*(yes|是)", re.IGNORECASE)
_NO = re.compile(r"^\s*(no|不)", re.IGNORECASE)
_RELATION = re.compile(r"[<>=]")


def is_right(asked: Example, answer: str) -> bool:
    """An answer without a result (a refusal, a greeting) must be the expected sentence."""
    if asked.expected is None:
        return answer.strip() == asked.answer
    return says(asked.expected, answer)


def says(expected: Expected, answer: str) -> bool:
    """Whether these are the answer's last numbers, and this its verdict."""
    numbers = [int(n) for n in _NUMBER.findall(answer)]
    if tuple(numbers[-len(expected.numbers) :]) != expected.numbers:
        return False
    if expected.verdict == "yes":
        return bool(_YES.match(answer))
    if expected.verdict == "no":
        return bool(_NO.match(answer))
    if expected.verdict:
        return _RELATION.findall(answer)[:1] == [expected.verdict]
    return True
