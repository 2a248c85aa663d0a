"""The line that says what is under way: kept up to date on a terminal, written anew every some seconds elsewhere. On stderr."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

INTERVAL_S = 10.0  # between lines where there is no terminal
_AT_ONCE_S = 2.0  # after which a remaining time can be told


def progress(fraction: float, seconds: float, words: str, total: float = 0.0) -> str:
    """What is told of a work of which `fraction` took `seconds`: percent, bytes, the time that is left, and what is under way.

    Args:
        total: bytes in all; 0 if it is not counted in bytes.
    """
    digits = 1 if total < 10e6 else 0
    size = f"{fraction * total / 1e6:,.{digits}f} of {total / 1e6:,.{digits}f} MB" if total > 1 else ""
    return ", ".join(filter(None, [f"{fraction:4.0%}", size, remaining(seconds, fraction), words]))


def remaining(seconds: float, fraction: float) -> str:
    """What is left of a work of which `fraction` took `seconds`, in words; empty while it cannot be told."""
    if seconds < _AT_ONCE_S or not 0 < fraction < 1:
        return ""
    left = seconds / fraction - seconds
    if left < 90:
        return f"{left:.0f} s left"
    return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"


class Shown:
    """What the user sees of a work."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._last = time.monotonic()
        self._drawn = False

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        self._out.write(f"{line}\n")
        self._out.flush()

    def update(self, name: str, words: str) -> None:
        """What is under way now: `words`, the most important first."""
        now = time.monotonic()
        if self._live:
            line = f"{name:<10} {words}"[: self._width() - 1]
            self._out.write(f"\r{line}\x1b[K")
            self._out.flush()
            self._drawn = True
        elif now - self._last > INTERVAL_S:
            self._last = now
            self.say(f"{name:<10} {words}")

    def clear(self) -> None:
        """Take away what does not stay."""
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._drawn = False

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except OSError:
            return 80
