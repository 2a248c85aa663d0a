"""Processes beside the server that outlive its restarts: each is started again by itself, later and later, for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from .restarts import Restarts
from .watchdog import Watchdog


class Process(Protocol):
    """See `Gateway`, `Front`."""

    @property
    def watched(self) -> dict[int, str]: ...
    def wait_ready(self, timeout_s: float, given_up: Callable[[], bool]) -> None: ...
    def problem(self) -> str | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Companion:
    """One of them; nobody until `start`."""

    def __init__(self, make: Callable[[], Process], watchdog: Watchdog, note: Callable[[str, float], None]) -> None:
        """
        Args:
            make: starts one.
            note: is told why one is started again, and in how many seconds.
        """
        self._make, self._watchdog, self._note = make, watchdog, note
        self._process: Process | None = None
        self._since = self._at = 0.0
        self.restarts = Restarts()

    def start(self) -> None:
        self._process, self._since = self._make(), time.monotonic()

    def wait_ready(self, timeout_s: float, given_up: Callable[[], bool]) -> None:
        """Wait until it serves, or until `given_up`.

        Raises:
            ServerError: it ended or was not ready in time.
        """
        if self._process is not None:
            self._process.wait_ready(timeout_s, given_up)

    def look(self) -> None:
        """End it where it does not get on, and start it again when it is time."""
        now, process = time.monotonic(), self._process
        if process is not None and (problem := process.problem() or self._watchdog.problem(process.watched)) is not None:
            process.kill()
            self._watchdog.forget(*process.watched)
            self._process = None
            delay_s = self.restarts.died(problem, now - self._since)
            self._at = now + delay_s
            self._note(problem, delay_s)
        if self._process is None and now >= self._at:
            self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
