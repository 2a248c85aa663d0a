"""Whether processes that run also get on: each says so every second, in a pipe that all of a server have.

Time is counted as this process sees it, and never more than a moment at once: when the machine has slept, or has had no time
for anybody, nobody was silent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

VARIABLE = "TRIUNE_PULSE_FD"  # of the environment: the descriptor of the pipe
SILENCE_S = 30.0
_MOST_S = 2.0  # that one look counts
_READ_BYTES = 1 << 16


class Watchdog:
    """What was heard of processes, by their ids. Who has never been heard of is not waited for, unless it was stopped."""

    def __init__(self, silence_s: float = SILENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            silence_s: how long one may say nothing.
        """
        self.silence_s, self._clock = silence_s, clock
        self._pipe, self.descriptor = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._looked_at = clock()
        self._heard: set[int] = set()
        self._silent: dict[int, float] = {}
        self._late: dict[int, int] = {}

    def problem(self, watched: Mapping[int, str]) -> str | None:
        """What is wrong with one of these processes, if anything.

        Args:
            watched: what each is, by its id.
        """
        for pid in watched.keys() - self._heard:
            if not _is_stopped(pid):
                self._silent.pop(pid, None)
            else:
                self._silent.setdefault(pid, 0.0)
        self._look()
        for pid, what in watched.items():
            if late_s := self._late.get(pid, 0):
                return f"{what} has stood still for {late_s} s (pid {pid})"
            if self._silent.get(pid, 0.0) > self.silence_s:
                return f"{what} has given no sign of life for {self.silence_s:.0f} s (pid {pid})"
        return None

    def stalled(self, watched: Mapping[int, str]) -> str | None:
        """Which of these has said nothing for so long that the server should be sent nothing: a third of `silence_s`."""
        enough_s = self.silence_s / 3
        late = (what for pid, what in watched.items() if self._silent.get(pid, 0.0) > enough_s)
        return next((f"{what} has given no sign of life for {enough_s:.0f} s" for what in late), None)

    def forget(self, *pids: int) -> None:
        """These processes have ended; others may get their ids."""
        self._look()
        for pid in pids:
            self._heard.discard(pid)
            self._silent.pop(pid, None)
            self._late.pop(pid, None)

    def close(self) -> None:
        """Listen no more."""
        os.close(self._pipe)
        os.close(self.descriptor)

    def _look(self) -> None:
        now = self._clock()
        passed_s, self._looked_at = min(now - self._looked_at, _MOST_S), now
        for pid in self._silent:
            self._silent[pid] += passed_s
        text = b""
        with suppress(BlockingIOError):
            while read := os.read(self._pipe, _READ_BYTES):  # lines are written whole
                text += read
        for line in text.splitlines():
            with suppress(ValueError):
                pid, late_s = map(int, line.split())
                self._silent[pid], self._late[pid] = 0.0, late_s
                self._heard.add(pid)


def _is_stopped(pid: int) -> bool:
    """Whether a process was stopped, and goes on only if somebody has it go on."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except (psutil.Error, OSError):
        return False


class Probe:
    """Asks a process that says nothing of itself, on a thread, and says for it that it lives."""

    def __init__(self, pid: int, ask: Callable[[], bool], watchdog: Watchdog) -> None:
        """
        Args:
            ask: whether it answers.
        """
        self._line = f"{pid} 0\n".encode("ascii")
        self._ask, self._watchdog = ask, watchdog
        self._ended = threading.Event()
        with suppress(RuntimeError):  # no thread can be had; who is not heard of is not waited for
            threading.Thread(target=self._run, name="probe", daemon=True).start()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._ask() and not self._ended.is_set():
                with suppress(OSError):  # it is full, or closed
                    os.write(self._watchdog.descriptor, self._line)
            self._ended.wait(self._watchdog.silence_s / 10)
