"""The plain terminal: lines in, text out. Also used when the output is a file or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

with contextlib.suppress(ImportError):  # not on every platform; `input` works without it
    import readline  # noqa: F401 - gives `input` its history and line editing


class Terminal(Protocol):
    """What the chat needs of a terminal."""

    def read(self) -> str:
        """The user's next line.

        Raises:
            EOFError, KeyboardInterrupt: the user wants to leave.
        """

    def piece(self, text: str) -> None:
        """Shows a piece of an answer at once, as it is."""

    def thought(self, text: str) -> None:
        """Shows a piece of what the model thinks before it answers, as it is."""

    def note(self, text: str) -> None:
        """Shows a line that is not part of an answer."""

    def error(self, text: str) -> None:
        """Shows a line about something that went wrong."""

    def waiting(self) -> contextlib.AbstractContextManager[object]:
        """Shows that something is under way, as long as the context is open."""


class PlainTerminal:
    """Answers on stdout, everything else on stderr."""

    def read(self) -> str:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        return input()

    def piece(self, text: str) -> None:
        print(text, end="", flush=True)

    def thought(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        print(f"error: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        yield
