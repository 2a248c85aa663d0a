"""Bounds on what code that nobody has read may take: processor time and memory of one call, on the thread that makes it.

Nothing is done while the call runs. Its time is looked at ten times a second by another thread, which ends it by raising in it;
memory is bounded by the system, so that one operation that asks for too much fails at once.
"""

from __future__ import annotations

import ctypes
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
_LOOK_S = 0.1
_REMEASURE_S = 1.0  # the process's own size is asked for no more often
_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()


class OverLimit(Exception):
    """The call took more than it may."""


class _Late(BaseException):
    """Raised in the thread whose time is up. No `Exception`, so that nothing on the way takes it for its own."""


class _Call:
    """One call under way. Whoever takes `right` decides its end: the watcher, which then raises, or the call itself."""

    def __init__(self, seconds: float) -> None:
        self.thread = threading.get_ident()
        self.clock = time.pthread_getcpuclockid(self.thread)
        self.deadline = time.clock_gettime(self.clock) + seconds
        self.right = [True]

    def watch(self) -> None:
        """End the call if it is late."""
        try:
            late = time.clock_gettime(self.clock) > self.deadline
        except OSError:  # its thread has ended
            return
        if late and _taken(self.right):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(_Late))

    def end(self) -> None:
        """The call is over. Waits for the exception where one is on its way, so that it meets nobody else."""
        if not _taken(self.right):
            while True:
                time.sleep(0.001)


class Limits:
    """Runs calls, each within `seconds` of processor time and `memory` more bytes than the process has."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._memory = seconds, memory
        self._call: _Call | None = None
        self._watcher: threading.Thread | None = None
        self._busy = threading.Event()  # a call is under way, or was a moment ago
        self._usual = self._bound = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self._measured = -_REMEASURE_S  # when
        self._one = threading.Lock()  # the memory limit is the process's: one call at a time

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns.

        Raises:
            OverLimit: it took too long or too much memory.
        """
        with self._one:
            if self._watcher is None:  # while memory has no bound: who starts a thread that gets none waits for ever
                self._watcher = threading.Thread(target=self._watch, name="triune-limits", daemon=True)
                self._watcher.start()
            now = time.monotonic()
            if now - self._measured > _REMEASURE_S:
                self._measure(now)
            resource.setrlimit(resource.RLIMIT_AS, self._bound)
            try:
                return self._within_time(work)
            except MemoryError:
                raise OverLimit(f"takes more than {self._memory >> 20} MiB of memory") from None
            finally:
                resource.setrlimit(resource.RLIMIT_AS, self._usual)

    def _within_time(self, work: Callable[[], Result]) -> Result:
        ended = False
        try:
            call = self._call = _Call(self._seconds)
            self._busy.set()
            try:
                return work()
            except _Late:
                ended = True
                raise
            finally:
                if not ended:
                    call.end()
        except _Late:
            raise OverLimit(f"takes more than {self._seconds:g} s") from None
        finally:
            self._call = None

    def _measure(self, now: float) -> None:
        """Find out what the process's limits are, and what they are to be during a call."""
        _, hard = self._usual = resource.getrlimit(resource.RLIMIT_AS)
        known = [limit for limit in self._usual if limit != resource.RLIM_INFINITY]
        size = int(_STATM.read_text().split()[0]) * _PAGE
        self._bound, self._measured = (min([size + self._memory, *known]), hard), now

    def _watch(self) -> None:
        while self._busy.wait():
            time.sleep(_LOOK_S)
            if call := self._call:
                call.watch()
                continue
            self._busy.clear()
            if self._call:  # one began just now
                self._busy.set()


def _taken(right: list[bool]) -> bool:
    """Take what only one can have; whether it was still there."""
    try:
        right.pop()
    except IndexError:
        return False
    return True
