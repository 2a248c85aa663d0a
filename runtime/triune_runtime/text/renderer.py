"""Chat templates are rendered in a process of its own, within bounds of time and memory: they come with the model, unread.

One operation of a template may take for ever, or all memory, or break the interpreter. Nothing inside a process can bound that,
and nobody else in it would get on meanwhile. So this one ends itself, by a timer of the kernel's, and another takes its place.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import Overloaded
from .framing import receive, send

SECONDS, MEMORY = 2.0, 256 << 20  # what rendering one chat may take: some hundred times what the longest ones take
_PATIENCE_S = 30.0  # for an answer, on a machine that has little time for the process
_ATTEMPTS = 2  # where it ends for no reason of its own


class OverLimit(Exception):
    """A template takes more than it may."""


class TemplateFailed(Exception):
    """What a template does wrong, in one line.

    Attributes:
        line: of the template; None: not known.
    """

    def __init__(self, said: str, line: int | None) -> None:
        super().__init__(said)
        self.line = line


class Renderer:
    """One process, for any number of templates. It is started when the first one comes; any thread may ask."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        """
        Args:
            seconds: of processor time, for one chat.
            memory: bytes that the process may have beyond what it begins with.
        """
        self._seconds, self._memory = seconds, memory
        self._one = threading.Lock()
        self._process: _Process | None = None

    def compile(self, source: str) -> frozenset[str]:
        """The variables that a template reads.

        Raises:
            TemplateFailed, OverLimit, Overloaded: see `render`.
        """
        return frozenset(self._ask(source, None))

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The text that a template makes.

        Args:
            variables: JSON's values alone.

        Raises:
            TemplateFailed: it does not compile, or fails.
            OverLimit: it takes too long, too much memory, or the process with it.
            Overloaded: there is no process that answers.
        """
        return str(self._ask(source, variables))

    def close(self) -> None:
        """End the process. The next chat starts another."""
        with self._one:
            self._end()

    def _ask(self, source: str, variables: Mapping[str, Any] | None) -> Any:
        with self._one:
            for _ in range(_ATTEMPTS):
                reply = self._reply(source, variables)
                if reply is not None:
                    break
            else:
                raise OverLimit("ends the process that renders it")
        if "failed" in reply:
            raise TemplateFailed(reply["failed"], reply["line"])
        if "over" in reply:
            raise OverLimit(reply["over"])
        return reply["made"]

    def _reply(self, source: str, variables: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """What the process says; None if it ended, and not by its own bounds."""
        try:
            process = self._process = self._process or _Process(self._seconds, self._memory)
        except OSError as error:
            raise Overloaded(f"the process that renders chats cannot be started: {error}", "send it again later") from None
        try:
            reply: dict[str, Any] = process.ask(source, variables)
        except TimeoutError:
            self._end()
            said = f"the process that renders chats has not answered for {_PATIENCE_S:g} s"
            raise Overloaded(said, "send it again later") from None
        except OSError:
            return {"over": f"takes more than {self._seconds:g} s"} if self._end() == -signal.SIGPROF else None
        if reply.get("ends"):
            self._end()
        return reply

    def _end(self) -> int | None:
        """How the process ended, if there was one."""
        process, self._process = self._process, None
        return None if process is None else process.end()


class _Process:
    """See `rendering_process`."""

    def __init__(self, seconds: float, memory: int) -> None:
        """Start it.

        Raises:
            OSError: it does not start.
        """
        self._numbers = itertools.count()
        self._known: dict[str, int] = {}  # the templates that it has, and the number of each
        self._socket, theirs = socket.socketpair()
        path = [str(Path(__file__).parents[2]), *sys.path]
        program = (
            f"import sys; sys.path[:] = {path!r}; from {__package__}.rendering_process import main; main({seconds}, {memory})"
        )
        try:
            # Isolated, and without what packages do at the start of every Python, which takes longer than all the rest.
            self._process = subprocess.Popen(
                [_python(), "-I", "-S", "-c", program], stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        try:
            self._socket.settimeout(_PATIENCE_S)
            receive(self._socket)  # that it is there
        except OSError as error:
            raise OSError(f"it ended with {self.end()}: {error}") from None

    def ask(self, source: str, variables: Mapping[str, Any] | None) -> dict[str, Any]:
        """
        Raises:
            TimeoutError: it says nothing.
            OSError: it has ended.
        """
        self._socket.settimeout(_PATIENCE_S)
        number = self._known.get(source)
        if number is not None and variables is not None:
            send(self._socket, [number, None, variables])
            return self._answer()
        number = next(self._numbers)
        send(self._socket, [number, source, variables])
        reply = self._answer()
        if "made" in reply:
            self._known[source] = number
        return reply

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(receive(self._socket))
        return answer

    def end(self) -> int:
        """Its exit status."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _python() -> str:
    """The interpreter of this process, which may be another program that has it inside."""
    return sys.executable or shutil.which("python3") or "python3"


@functools.cache
def shared() -> Renderer:
    """The one of this process."""
    made = Renderer()
    atexit.register(made.close)
    return made
