"""When what has died is started again: at once, then later and later, and for ever. Knows no clock."""

from __future__ import annotations

_FIRST_S, _LONGEST_S = 1.0, 60.0
_SETTLED_S = 60.0  # what has lived so long has not died of what ended the one before


class Restarts:
    """The deaths of one process."""

    def __init__(self) -> None:
        self.total = 0
        self.reason = ""  # of the latest
        self._in_a_row = 0

    def died(self, reason: str, lived_s: float) -> float:
        """Count a death; in how many seconds to start again.

        Args:
            lived_s: since it was ready; 0: it never was.
        """
        self._in_a_row = 1 if lived_s >= _SETTLED_S else self._in_a_row + 1
        self.total += 1
        self.reason = reason
        if self._in_a_row == 1:
            return 0.0
        return min(_FIRST_S * 2.0 ** min(self._in_a_row - 2, 10), _LONGEST_S)
