"""What can go wrong in a build, always with the remedy."""

from __future__ import annotations


class BuildError(Exception):
    """A build cannot go on. `hint` says what the user can do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n\nhint: {self.hint}" if self.hint else message
