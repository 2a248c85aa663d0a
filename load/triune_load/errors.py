"""What goes wrong in a load test itself, as against what a server does wrong."""

from __future__ import annotations


class LoadError(Exception):
    """The run cannot be made: a bad setting, a file that cannot be used, a server that does not answer.

    Args:
        message: names the value, and what was expected.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
