"""The coloured terminal: the only file that imports rich (extra `[chat]`)."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console
from rich.text import Text


class RichTerminal:
    """Answers as they come, thinking and notes dim, a spinner while the first token is on its way."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def read(self) -> str:
        # The prompt goes through `input`, so that line editing knows its width.
        return input("\n> ")

    def piece(self, text: str) -> None:
        self._console.print(Text(text), end="")

    def thought(self, text: str) -> None:
        self._console.print(Text(text, style="dim italic"), end="")

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def error(self, text: str) -> None:
        self._console.print(Text(text, style="red"))

    def waiting(self) -> AbstractContextManager[object]:
        return self._console.status("")
