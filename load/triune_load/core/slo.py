"""Service level objectives, and the search for the highest load that keeps them. Pure: outcomes in, the next load out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import LoadError
from .units import parse_duration

LATENCIES = ("first_token", "between", "end_to_end")


@dataclass(frozen=True)
class Slo:
    """What each request must keep; seconds. A latency that is not named is free."""

    limits: Mapping[str, float]

    def kept(self, latencies: Mapping[str, float | None]) -> bool:
        """Whether a request with these latencies keeps every objective; one without the latency keeps it."""
        return all((found := latencies.get(name)) is None or found <= limit for name, limit in self.limits.items())

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} within {limit * 1e3:g} ms" for name, limit in self.limits.items())


def parse_slo(text: str) -> Slo:
    """`first_token=500ms,between=50ms`.

    Raises:
        LoadError: a name or a duration is wrong.
    """
    limits = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        if name.strip() not in LATENCIES:
            raise LoadError(f"slo has {name.strip()!r}; expected {', '.join(LATENCIES)}, as in first_token=500ms,between=50ms")
        limits[name.strip()] = parse_duration(value, f"slo {name.strip()}")
    return Slo(limits)


class Search:
    """Finds the highest load that passes: doubles it until one fails, then halves the gap.

    Args:
        least: the first load to try, and the least.
        most: no load above it is tried.
        precision: stop when the gap is at most this share of the load that passes.
        whole: loads are whole numbers, as of streams.
    """

    def __init__(self, least: float, most: float, *, precision: float = 0.05, whole: bool = False) -> None:
        self._least, self._most, self._precision, self._whole = least, most, precision, whole
        self.passed: float | None = None
        self.failed: float | None = None

    def next(self) -> float | None:
        """The load to try now, None when the search is over."""
        if self.passed is None:
            return self._least if self.failed is None else None
        if self.failed is None:
            return None if self.passed >= self._most else min(self._most, self.passed * 2)
        middle = (self.passed + self.failed) / 2
        if self._whole:
            middle = float(int(middle))
        done = middle <= self.passed or self.failed - self.passed <= self._precision * self.passed
        return None if done else middle

    def tell(self, load: float, passed: bool) -> None:
        """What came of the load that `next` gave."""
        if passed:
            self.passed = load
        else:
            self.failed = load
