"""What a caller can do wrong, and what the runtime can run out of.

TriuneError           INTERNAL: .code, .param, .hint
├── RequestError      INVALID_ARGUMENT: the request itself is wrong: the same request will fail again
│   └── TooLong       prompt and answer do not fit the engine
├── Overloaded        UNAVAILABLE: no room now: the same request may succeed later
└── ManifestError     the engine on disk is not one this runtime can run
DeviceLost            no step can succeed in this process any more; not a TriuneError, so that nobody goes on after it

Every error has a code: one of the words below, each of one class of errors and so of one gRPC status. Programs go by the code,
people by the message, which may be worded anew at any time. To add one: a word here and its row in docs/openai.md, and what
the OpenAI-compatible API makes of it in `triune_gateway.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

Status = Literal["INVALID_ARGUMENT", "UNAVAILABLE", "INTERNAL"]  # names of gRPC's
RequestCode = Literal[
    "invalid_value",  # an input is of a wrong type, range or form
    "missing_value",  # an input that is needed is not there
    "unknown_option",  # no input or parameter has this name
    "unsupported",  # what is asked for is not served, or not by this model
    "conflict",  # two inputs contradict or exclude each other
    "no_tools",  # a call of a tool is required, but there are no tools
    "too_large",  # an input has more entries, bytes or levels than are served
    "too_long",  # prompt and answer do not fit the engine
    "too_many_sequences",  # more answers at once than the engine serves
]
RoomCode = Literal[
    "overloaded",  # as many are served and waiting as may be
    "stopping",  # the server is stopping, or starts again
]
FaultCode = Literal[
    "engine_failed",  # the engine failed while it served this request
    "internal",  # anything else that is not the caller's fault
]
Code = RequestCode | RoomCode | FaultCode


class TriuneError(Exception):
    """Base of every error the runtime raises on purpose.

    Attributes:
        status: the gRPC status of its class.
        code: the kind of error, for programs.
        param: the input that is at fault, as the client named it; None if it is none in particular.
        hint: what to do about it.
    """

    status: Status = "INTERNAL"

    def __init__(self, message: str, hint: str | None = None, *, code: FaultCode = "internal") -> None:
        super().__init__(message)
        self.hint = hint
        self.code: Code = code
        self.param: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; hint: {self.hint}" if self.hint else message


class RequestError(TriuneError):
    """The request is malformed or asks for what this engine cannot do."""

    status: Status = "INVALID_ARGUMENT"

    def __init__(self, message: str, hint: str | None = None, *, code: RequestCode, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.param = param


class TooLong(RequestError):
    """Prompt plus max_tokens exceed the engine's length."""

    def __init__(self, message: str, hint: str | None = None, *, param: str) -> None:
        super().__init__(message, hint, code="too_long", param=param)


class Overloaded(TriuneError):
    """The bounded queue is full or the runtime is shutting down.

    `param`: what there is no room for, if for other requests there may be some.
    """

    status: Status = "UNAVAILABLE"

    def __init__(
        self, message: str, hint: str | None = None, *, code: RoomCode = "overloaded", param: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.param = param


class ManifestError(TriuneError):
    """engine.json is missing, malformed, or of an engine that this runtime cannot run."""


class DeviceLost(BaseException):
    """What computes is lost until the process starts anew, e.g. a GPU after an illegal access.

    Like SystemExit no `Exception`: whoever answers a failed step and goes on must not catch it. The worker then answers
    everyone and stops, and whoever watches the server starts it again.
    """


_KINDS: tuple[tuple[type[TriuneError], object], ...] = (
    (RequestError, RequestCode),
    (Overloaded, RoomCode),
    (TriuneError, FaultCode),
)
CODES: Mapping[Code, Status] = MappingProxyType({code: kind.status for kind, codes in _KINDS for code in get_args(codes)})
