"""Distributions of lengths, and of waits: parsed from `uniform:32-96` and the like, drawn with a random generator."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from ..errors import LoadError

_NUMBER = r"(\d+(?:\.\d+)?)"
_FORMS = {
    "fixed": re.compile(rf"{_NUMBER}$"),
    "uniform": re.compile(rf"{_NUMBER}-{_NUMBER}$"),
    "normal": re.compile(rf"{_NUMBER},{_NUMBER}$"),
    "lognormal": re.compile(rf"{_NUMBER},{_NUMBER}$"),
    "exponential": re.compile(rf"{_NUMBER}$"),
    "choice": re.compile(rf"{_NUMBER}(?:,{_NUMBER})*$"),
}
EXPECTED = (
    "128, uniform:32-96, normal:150,30 (mean, deviation), lognormal:150,0.5 (median, sigma), exponential:100, choice:32,64"
)


@dataclass(frozen=True)
class Lengths:
    """A distribution of numbers that are never negative."""

    kind: str
    values: tuple[float, ...]

    def draw(self, rng: random.Random) -> float:
        """A number."""
        first = self.values[0]
        match self.kind:
            case "uniform":
                return rng.uniform(first, self.values[1])
            case "normal":
                return max(0.0, rng.gauss(first, self.values[1]))
            case "lognormal":
                return first * math.exp(rng.gauss(0.0, self.values[1]))
            case "exponential":
                return rng.expovariate(1 / first)
            case "choice":
                return rng.choice(self.values)
        return first

    def draw_tokens(self, rng: random.Random) -> int:
        """A number of tokens: whole, at least 1."""
        if self.kind == "uniform":  # both ends as likely as the rest
            return max(1, rng.randint(int(self.values[0]), int(self.values[1])))
        return max(1, round(self.draw(rng)))

    def __str__(self) -> str:
        separator = "-" if self.kind == "uniform" else ","
        return f"{self.kind}:{separator.join(f'{v:g}' for v in self.values)}"


def parse_lengths(text: str, name: str) -> Lengths:
    """The distribution that `text` describes; `name` is of the setting.

    Raises:
        LoadError: it is none.
    """
    kind, found, rest = text.strip().partition(":")
    if not found:
        kind, rest = "fixed", text.strip()
    if kind not in _FORMS or not _FORMS[kind].match(rest):
        raise LoadError(f"{name} is {text!r}; expected {EXPECTED}")
    values = tuple(float(v) for v in re.findall(r"\d+(?:\.\d+)?", rest))
    if kind == "uniform" and values[0] > values[1]:
        raise LoadError(f"{name} is {text!r}; expected the smaller number first", f"write uniform:{values[1]:g}-{values[0]:g}")
    if kind in ("lognormal", "exponential") and values[0] == 0:
        raise LoadError(f"{name} is {text!r}; its {'median' if kind == 'lognormal' else 'mean'} must be above 0")
    return Lengths(kind, values)
