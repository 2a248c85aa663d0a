"""Axes: where a value lies in a plot, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """From values to places, evenly or by logarithm."""

    low: float
    high: float
    start: float  # place of `low`
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        share = 0.5 if high == low else (at - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least `high`."""
    if not high > 0:
        return [0.0, 1.0]
    raw = high / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    return [step * n for n in range(math.ceil(high / step - 1e-9) + 1)]


def number(value: float) -> str:
    """Short, for an axis."""
    if value >= 1e9:
        return f"{value / 1e9:g}G"
    if value >= 10_000:
        return f"{value / 1000:,.4g}k"
    return f"{value:,.4g}"


def is_wide(values: Sequence[float]) -> bool:
    """Whether values want a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= 8
