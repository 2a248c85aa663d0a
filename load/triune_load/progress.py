"""Counts answers as they end, for the display. Knows the last seconds; no I/O."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from .core.answer import Answer
from .core.checks import Violation

_WINDOW_S = 3.0


class Progress:
    """What has happened in a step so far."""

    def __init__(self) -> None:
        self.ended = self.errors = self.violations = 0
        self._recent: deque[Answer] = deque()
        self._last_error = self._last_violation = ""

    def took(self, answer: Answer, violations: list[Violation]) -> None:
        """An answer ended."""
        self.ended += 1
        self.violations += len(violations)
        self._recent.append(answer)
        if answer.failure is not None:
            self.errors += 1
            self._last_error = f"{answer.failure.kind}: {answer.failure.message}"
        if violations:
            self._last_violation = f"{violations[0].check}: {violations[0].message}"

    def look(self, now: float) -> dict[str, Any]:
        """The figures of the last seconds, and the counts."""
        while self._recent and self._recent[0].ended < now - _WINDOW_S:
            self._recent.popleft()
        first = [(a.times[0] - a.intended) * 1e3 for a in self._recent if a.times]
        return {
            "ended": self.ended, "errors": self.errors, "violations": self.violations, "last_error": self._last_error,
            "last_violation": self._last_violation, "rate": len(self._recent) / _WINDOW_S,
            "tokens_per_s": sum(a.token_count for a in self._recent) / _WINDOW_S,
            "first_token_ms": float(np.median(first)) if first else None,
        }  # fmt: skip
