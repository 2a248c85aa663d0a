"""What stops a set-up, always with the remedy."""

from __future__ import annotations


class SetupError(Exception):
    """An environment cannot be made. `hint` says what the user can do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
