"""Whether a row of figures grows, beyond how much it goes up and down anyway."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WARM_UP = 0.2  # of the time: every slot and every kind of request is met by then
_POINTS = 200  # that a slope is taken of; each is the median of its neighbours


@dataclass(frozen=True)
class Trend:
    """Of one row.

    Attributes:
        growth: from the end of the warm-up to the end, along the line.
        noise: three typical distances from the line.
    """

    growth: float
    noise: float

    def grows(self, allowed: float) -> bool:
        """Whether it grows by more than its noise, and more than `allowed`."""
        return self.growth > max(self.noise, allowed)


def trend(at: Sequence[float], values: Sequence[float]) -> Trend | None:
    """The line through a row: the median of the slopes between all pairs of points (Theil and Sen).

    Args:
        at: seconds, rising.

    Returns:
        None where there are fewer than eight points after the warm-up.
    """
    first = at[0] + WARM_UP * (at[-1] - at[0]) if at else 0.0
    points = _thinned([(x, y) for x, y in zip(at, values, strict=True) if x >= first])
    if len(points) < 8:
        return None
    slope = statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1)
    offset = statistics.median(y - slope * x for x, y in points)
    away = statistics.median(abs(y - slope * x - offset) for x, y in points)
    return Trend(slope * (points[-1][0] - points[0][0]), 3 * 1.4826 * away)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(1, len(points) // _POINTS)
    parts = [points[n : n + size] for n in range(0, len(points), size)]
    return [(statistics.median(x for x, _ in part), statistics.median(y for _, y in part)) for part in parts]
