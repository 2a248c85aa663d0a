"""Durations and lists of numbers as people write them: `500ms`, `20s`, `1,4,16`."""

from __future__ import annotations

import re

from ..errors import LoadError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|)$")


def parse_duration(text: str, name: str) -> float:
    """Seconds.

    Raises:
        LoadError: it is no duration.
    """
    if (found := _DURATION.match(text.strip())) is None:
        raise LoadError(f"{name} is {text!r}; expected a duration such as 500ms, 20s or 2m")
    return float(found[1]) * _UNITS[found[2]]


def parse_numbers(text: str, name: str, *, whole: bool) -> tuple[float, ...]:
    """The numbers of a list with commas, each above 0.

    Raises:
        LoadError: one is not.
    """
    numbers = []
    for item in text.split(","):
        try:
            number = float(item)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf") or (whole and number != int(number)):
            raise LoadError(f"{name} is {text!r}; expected {'whole numbers' if whole else 'numbers'} above 0 such as 1,4,16")
        numbers.append(number)
    return tuple(numbers)


def milliseconds(seconds: float) -> str:
    """For people: three digits that count."""
    ms = seconds * 1e3
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"
