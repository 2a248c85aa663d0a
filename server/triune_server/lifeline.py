"""Processes that end with this one, whatever ends it: at once, with all that they started, also those that are stopped."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .leftovers import marked, wait_gone
from .telling import open_log

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_F_SETSIG = 10  # of Linux's fcntl
_LOOK_S = 0.02
_GONE_S = 5.0  # for what was killed to be gone


class Child:
    """A process in a session of its own, and a pipe whose other end only this process has.

    When that end closes, because this process ended, the kernel kills the child's whole process group. A signal for the death
    of the parent (PR_SET_PDEATHSIG) would reach the child alone, never what it has started.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], log: Path, mark: str, descriptors: Sequence[int] = ()
    ) -> None:
        """Start it; its output goes to the end of `log`.

        Args:
            mark: see `leftovers.mark_of`; in `env`, so that all that is started has it.
            descriptors: to be inherited.
        """
        self._mark = mark
        read, self._hold = os.pipe()
        try:
            with open_log(log) as out:
                self.process = psutil.Popen(
                    command, env=env, pass_fds=(read, *descriptors),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    start_new_session=True,  # ctrl-C stops the supervisor, which then stops the others in order
                    preexec_fn=lambda: _tie(read, self._hold),
                )  # fmt: skip
        except BaseException:
            os.close(self._hold)
            raise
        finally:
            os.close(read)

    def kill(self) -> None:
        """End it and all that it started at once; clients see their connections close."""
        if self._hold < 0:
            return
        others = [p for p in self.family() if p.pid != self.process.pid]
        os.close(self._hold)
        self._hold = -1
        self.send(signal.SIGKILL)  # also where the kernel knows no signal for a pipe
        for process in others:
            with suppress(psutil.NoSuchProcess, OSError):
                process.kill()
        wait_gone([self.process, *others], _GONE_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives: without a descriptor for a look at it, as whoever has none left must."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)  # a child whose exit code nobody has asked for: nobody else has its id

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; whether it has within so long."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_S)
        return True

    def family(self) -> list[psutil.Process]:
        """It and all that it started, as far as they live, also those whose parent is dead."""
        return [p for p in marked(self._mark) if _session(p) == self.process.pid]


def _session(process: psutil.Process) -> int:
    with suppress(OSError):
        return os.getsid(process.pid)
    return -1


def end_with_parent() -> None:
    """In a new process: have the kernel kill it when its parent's thread that started it has ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tie(read: int, hold: int) -> None:
    """In the new process: have the kernel kill its group when nobody has `hold` any more."""
    os.close(hold)
    try:
        fcntl.fcntl(read, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(read, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(read, fcntl.F_SETFL, fcntl.fcntl(read, fcntl.F_GETFL) | os.O_ASYNC)
    except (
        OSError
    ):  # a kernel that cannot do it. Both would be too much: a child that dies first takes its end of the pipe along
        end_with_parent()
    poll = select.poll()
    poll.register(read, 0)
    if poll.poll(0):  # it has ended meanwhile
        os._exit(1)
