"""Thresholds that a run must keep: `"first_token_ms.p95" = "<= 500"`, read against its figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LoadError

_FORM = re.compile(r"(<=|>=|<|>)\s*(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Threshold:
    """One bound of one figure."""

    figure: str  # path in the figures, e.g. latencies.first_token_ms.p95; `latencies.` may be left out
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {self.relation} {self.bound:g}"


@dataclass(frozen=True)
class Outcome:
    """What a threshold says of a run."""

    threshold: Threshold
    value: float | None
    kept: bool


def parse_thresholds(raw: Mapping[str, Any]) -> list[Threshold]:
    """The thresholds of a table.

    Raises:
        LoadError: a bound is not like `<= 500`.
    """
    found = []
    for figure, bound in raw.items():
        if (parts := _FORM.match(str(bound).strip())) is None:
            raise LoadError(f"the threshold of {figure} is {bound!r}; expected a bound such as '<= 500'")
        found.append(Threshold(figure, parts[1], float(parts[2])))
    return found


def judge(threshold: Threshold, figures: Mapping[str, Any]) -> Outcome:
    """The outcome; a figure that is not there keeps nothing."""
    value = _value(figures, threshold.figure)
    if value is None:
        value = _value(figures.get("latencies", {}), threshold.figure)
    if value is None:
        return Outcome(threshold, None, False)
    bound = threshold.bound
    kept = {"<=": value <= bound, ">=": value >= bound, "<": value < bound, ">": value > bound}[threshold.relation]
    return Outcome(threshold, value, kept)


def _value(figures: Any, path: str) -> float | None:
    for name in path.split("."):
        if not isinstance(figures, Mapping) or name not in figures:
            return None
        figures = figures[name]
    return float(figures) if isinstance(figures, (int, float)) else None
