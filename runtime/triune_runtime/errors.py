"""What a caller can do wrong, and what the runtime can run out of.

TriuneError
├── RequestError      the request itself is wrong: the same request will fail again
│   └── TooLong       prompt and answer do not fit the engine
├── Overloaded        no room now: the same request may succeed later
└── ManifestError     the engine on disk is not one this runtime can run
DeviceLost            no step can succeed in this process any more; not a TriuneError, so that nobody goes on after it
"""

from __future__ import annotations


class TriuneError(Exception):
    """Base of every error the runtime raises on purpose; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; hint: {self.hint}" if self.hint else message


class RequestError(TriuneError):
    """The request is malformed or asks for what this engine cannot do."""


class TooLong(RequestError):
    """Prompt plus max_tokens exceed the engine's length."""


class Overloaded(TriuneError):
    """The bounded queue is full or the runtime is shutting down."""


class ManifestError(TriuneError):
    """engine.json is missing, malformed, or of an engine that this runtime cannot run."""


class DeviceLost(BaseException):
    """What computes is lost until the process starts anew, e.g. a GPU after an illegal access.

    Like SystemExit no `Exception`: whoever answers a failed step and goes on must not catch it. The worker then answers
    everyone and stops, and whoever watches the server starts it again.
    """
