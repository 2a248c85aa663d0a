"""What can go wrong with a call, as one tree. Knows statuses and texts; no sockets.

TriuneError            .request_id, .status, .code, .param, .partial
├── ConnectError       nothing answers at the URL; nothing was sent
├── TimeoutError_      silence for longer than timeout_s, or no end by deadline_s
├── StatusError        the server refused or failed the request
│   ├── BadRequest     400 / INVALID_ARGUMENT: the same request will fail again
│   ├── NotFound       404 / NOT_FOUND: no such model
│   ├── Overloaded     503 / UNAVAILABLE: no room now, try again later (.retry_after_s)
│   └── ServerError    500 / INTERNAL and every other failure
├── StreamBroken       the answer stopped before its last chunk (.partial is what came)
├── Cancelled          the request was cancelled before its end (.partial is what came)
└── InvalidAnswer      the answer is not what response_format says (.partial is the answer)
"""

from __future__ import annotations

import re


class TriuneError(Exception):
    """Base of every error this library raises about a call.

    Attributes:
        message: what went wrong, without the request id.
        request_id: id of the request, "" for calls without one.
        status: HTTP status, or the name of a gRPC status; None when the server did not send one.
        code: the server's word for what went wrong, such as "too_long" (the README has them all); None if it sent none, as
            a server of an earlier version does, and Triton itself.
        param: the input that is at fault, as the server names it; None if it named none.
        partial: text received before the error, "" if none.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str = "",
        status: int | str | None = None,
        code: str | None = None,
        param: str | None = None,
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.status = status
        self.code = code
        self.param = param
        self.partial = partial

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class ConnectError(TriuneError):
    """Nothing answers at the URL. Nothing was sent, so trying again is safe."""


class TimeoutError_(TriuneError):
    """The server was silent for longer than `timeout_s`, or the answer did not end by `deadline_s`."""


class StatusError(TriuneError):
    """The server answered with an error."""


class BadRequest(StatusError):
    """The request is wrong, or not allowed: the same request will fail again."""


class NotFound(StatusError):
    """The server has no model of this name."""


class Overloaded(StatusError):
    """The server has no room now: the same request may succeed later.

    Attributes:
        retry_after_s: seconds the server asked to wait, None if it did not say.
    """

    retry_after_s: float | None = None


class ServerError(StatusError):
    """The server failed."""


class StreamBroken(TriuneError):
    """The answer stopped before its last chunk; `partial` is the text that came."""


class Cancelled(TriuneError):
    """The request was cancelled before its end; `partial` is the text that came."""


class InvalidAnswer(TriuneError):
    """The answer is not what `response_format` says; `partial` is its text."""


_GRPC: dict[str, type[TriuneError]] = {
    "INVALID_ARGUMENT": BadRequest,
    "FAILED_PRECONDITION": BadRequest,
    "OUT_OF_RANGE": BadRequest,
    "UNAUTHENTICATED": BadRequest,
    "PERMISSION_DENIED": BadRequest,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Overloaded,
    "RESOURCE_EXHAUSTED": Overloaded,
    "CANCELLED": Cancelled,
    "DEADLINE_EXCEEDED": TimeoutError_,
}

_NAMED = re.compile(
    rf"^(?:in ensemble '[^']*', )?\[?({'|'.join(_GRPC)}|INTERNAL)\b\]?"
    r"(?: \[(?P<code>[a-z_]+)(?: (?P<param>[A-Za-z0-9_.\[\]-]+))?\](?=: ))?:? *"
)
# What Triton itself says where it gives no status, or the same one for everything.
_SAYINGS: tuple[tuple[re.Pattern[str], type[TriuneError]], ...] = (
    (re.compile(r"unknown model", re.IGNORECASE), NotFound),
    (re.compile(r"maximum queue size", re.IGNORECASE), Overloaded),
    (re.compile(r"stub process", re.IGNORECASE), StreamBroken),  # the process of a model has ended
    (re.compile(r"failed to process the request", re.IGNORECASE), ServerError),
)


def from_message(
    message: str, default: type[TriuneError], *, status: int | str | None = None, request_id: str = ""
) -> TriuneError:
    """The error a message names, whatever status it came with.

    Triton reports errors of a model with HTTP status 400 whatever their code, and in a gRPC stream without a status; so
    a server puts the name of the status in front, its word for the error and the input at fault: "INVALID_ARGUMENT
    [too_long prompt]: prompt has ...". A server of an earlier version sends the status alone: "UNAVAILABLE: the queue is
    full". Without one, Triton's own sentences are known, and all else is of the class `default`.
    """
    if named := _NAMED.match(message):
        name, code, param = named.groups()
        text = message[named.end() :]
        return class_of_grpc(name)(text, status=status or name, code=code, param=param, request_id=request_id)
    for saying, kind in _SAYINGS:
        if saying.search(message):
            return kind(message, status=status, request_id=request_id)
    return default(message, status=status, request_id=request_id)


def class_of_http(status: int) -> type[StatusError]:
    """The error class of an HTTP status of 300 or more."""
    if status == 404:
        return NotFound
    if status in (429, 503):
        return Overloaded
    return BadRequest if 400 <= status < 500 else ServerError


def class_of_grpc(code: str) -> type[TriuneError]:
    """The error class of a gRPC status, by its name, such as "INVALID_ARGUMENT"."""
    return _GRPC.get(code, ServerError)
