"""Processes beside the server that outlive its restarts: each is started again by itself, later and later, for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import ServerError
from .given import given
from .lifeline import Child
from .options import ServerOptions
from .restarts import Restarts
from .surroundings import Surroundings
from .telling import log_lines, log_size
from .watchdog import Watchdog

STOP_S = 6.0  # for one to end in order
_LOOK_S = 0.05


class CompanionProcess:
    """A running one. Its clients are told to try again while the server behind it starts."""

    def __init__(
        self, command: Sequence[str], what: str, ready: Callable[[], bool], options: ServerOptions, log: Path,
        around: Surroundings, *, becomes: str = "ready",
    ) -> None:  # fmt: skip
        """Start it; its output goes to the end of `log`.

        Args:
            what: it is, in words.
            ready: whether it serves.
            becomes: what it is then, in a word.
        """
        self.log, self._log_start = log, log_size(log)
        self._what, self._ready, self._becomes = what, ready, becomes
        self._child = Child(
            command, env=given(os.environ, keys=True) | {"PYTHONUNBUFFERED": "1", **around.environment(options)}, log=log,
            mark=around.mark, descriptors=around.descriptors,
        )  # fmt: skip
        self.process = self._child.process
        self._told = False  # to end

    def wait_ready(
        self,
        timeout_s: float,
        given_up: Callable[[], bool] = lambda: False,
        hangs: Callable[[Mapping[int, str]], str | None] = lambda watched: None,
    ) -> None:
        """Wait until it serves, or until `given_up`.

        Args:
            hangs: see `Server.wait_ready`.

        Raises:
            ServerError: it ended or hangs, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if given_up():
                return
            if (problem := self.problem() or hangs(self.watched)) is not None:
                raise ServerError(f"{problem} while starting:\n{self.reasons()}", f"the whole log is {self.log}")
            if self._ready():
                return
            time.sleep(_LOOK_S)
        raise ServerError(f"{self._what} was not {self._becomes} after {timeout_s:.0f} s", f"the whole log is {self.log}")

    def problem(self) -> str | None:
        """What is wrong with it, or None: it has ended."""
        if self.process.poll() is None:
            return None
        return f"{self._what} ended with code {self.process.returncode}"

    @property
    def watched(self) -> dict[int, str]:
        """See `Server.watched`."""
        return {self.process.pid: self._what}

    def tell_to_end(self) -> None:
        """Have it end when the answers under way have ended, or after a moment. Once: told again, a process ends at once."""
        if not self._told:
            self._child.send(signal.SIGTERM)
        self._told = True

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End it, in order if that takes no longer."""
        self.tell_to_end()
        self._child.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()

    def reasons(self) -> str:
        """Its last words."""
        return "\n".join(f"  {line[:300]}" for line in log_lines(self.log, self._log_start)[-4:])


class Companion:
    """One of them; nobody until `start`."""

    def __init__(self, make: Callable[[], CompanionProcess], watchdog: Watchdog, note: Callable[[str, float], None]) -> None:
        """
        Args:
            make: starts one.
            note: is told why one is started again, and in how many seconds.
        """
        self._make, self._watchdog, self._note = make, watchdog, note
        self._process: CompanionProcess | None = None
        self._since = self._at = 0.0
        self.restarts = Restarts()

    def start(self) -> None:
        self._process, self._since = self._make(), time.monotonic()

    def wait_ready(self, timeout_s: float, given_up: Callable[[], bool]) -> None:
        """Wait until it serves, or until `given_up`.

        Raises:
            ServerError: it ended or hangs, or was not ready in time.
        """
        if self._process is not None:
            self._process.wait_ready(timeout_s, given_up, self._watchdog.problem)

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
            try:
                self.start()
            except OSError as error:  # no descriptor, process or memory is left
                delay_s = self.restarts.died(f"no process can be started: {error.strerror}", 0.0)
                self._at = now + delay_s
                self._note(self.restarts.reason, delay_s)

    def tell_to_end(self) -> None:
        if self._process is not None:
            self._process.tell_to_end()

    def stop(self, timeout_s: float) -> None:
        if self._process is not None:
            self._process.stop(timeout_s)


def stop_all(companions: Sequence[Companion]) -> None:
    """End them side by side: whoever waits for a server to end waits for the slowest, not for one after another."""
    end = time.monotonic() + STOP_S
    for one in companions:
        one.tell_to_end()
    for one in companions:
        one.stop(max(0.0, end - time.monotonic()))
