"""What a check says: what was looked at, what was found, whether that is good, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How good something is, from best to worst; UNKNOWN: it could not be looked at."""

    GOOD = "good"
    UNKNOWN = "unknown"
    POOR = "poor"  # it works, slower or with less room than it could
    BAD = "bad"  # something will not work


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    found: str
    verdict: Verdict = Verdict.GOOD
    remedy: str = ""  # of what is not good; what needs root says so

    def as_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}


def good(subject: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, found)


def poor(subject: str, found: str, remedy: str) -> Finding:
    """It works, slower or with less room than it could."""
    return Finding(subject, found, Verdict.POOR, remedy)


def bad(subject: str, found: str, remedy: str) -> Finding:
    """Something will not work."""
    return Finding(subject, found, Verdict.BAD, remedy)


def unknown(subject: str, found: str, remedy: str = "") -> Finding:
    """It could not be looked at, and why."""
    return Finding(subject, found, Verdict.UNKNOWN, remedy)
