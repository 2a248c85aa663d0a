"""Errors in OpenAI's shape, and which of them a failure of the server behind becomes. Knows statuses; no sockets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from triune_client import (
    BadRequest,
    Cancelled,
    ConnectError,
    NotFound,
    Overloaded,
    StatusError,
    StreamBroken,
    TimeoutError_,
    TriuneError,
)

ErrorType = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
_LONGEST_VALUE = 80
RETRY_AFTER_S = 1  # when the server is full: an answer of a few dozen tokens later there may be room


class ApiError(Exception):
    """An error as OpenAI's clients know it: an HTTP status and the object `{"error": {message, type, param, code}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: ErrorType = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status."""
        headers: dict[str, str] = {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The request is wrong: the same one will be refused again."""
    return ApiError(400, message, param=param, code=code)


def not_supported(param: str, message: str) -> ApiError:
    """The request asks for what this server does not do."""
    return ApiError(400, message, param=param, code="unsupported_parameter")


def interrupted(message: str) -> ApiError:
    """The server ended before the answer did: the same request may succeed later."""
    return ApiError(_LOST.status, message, kind=_LOST.kind, code=_LOST.code, retry_after_s=RETRY_AFTER_S)


def full() -> ApiError:
    """The server was full a moment ago."""
    message = "The server is full: as many requests as it takes are under way or wait; send the request again later."
    return ApiError(_FULL.status, message, kind=_FULL.kind, code=_FULL.code, retry_after_s=RETRY_AFTER_S)


def shown(value: object) -> str:
    """A value as JSON has it, and at most 80 characters of it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


@dataclass(frozen=True)
class Meaning:
    """What an error of the server behind is to OpenAI's clients."""

    status: int
    kind: ErrorType
    code: str | None = None
    retry: bool = False


_WRONG = Meaning(400, "invalid_request_error")
_FULL = Meaning(503, "server_error", "overloaded", retry=True)
_NOT_READY = Meaning(503, "server_error", "not_ready", retry=True)  # it starts, or starts again
_LOST = Meaning(503, "server_error", "interrupted", retry=True)  # it ended, or lost a process, while it answered
_SILENT = Meaning(504, "server_error", "timeout")
_FAULT = Meaning(500, "server_error")
# The server's codes; docs/openai.md has them all with what they mean.
MEANINGS: Mapping[str, Meaning] = {
    "invalid_value": _WRONG,
    "missing_value": _WRONG,
    "unknown_option": _WRONG,
    "unsupported": _WRONG,
    "conflict": _WRONG,
    "no_tools": _WRONG,
    "too_large": _WRONG,
    "too_long": Meaning(400, "invalid_request_error", "context_length_exceeded"),
    "too_many_sequences": _WRONG,
    "overloaded": _FULL,
    "stopping": _FULL,
    "engine_failed": _FAULT,
    "internal": _FAULT,
}
# What the server did not say, or said without a code that is known here: Triton's own errors, and those of other versions.
_BY_CLASS: tuple[tuple[type[TriuneError], Meaning], ...] = (
    (BadRequest, _WRONG),
    (Overloaded, _FULL),
    (ConnectError, _NOT_READY),
    (NotFound, _NOT_READY),
    (TimeoutError_, _SILENT),
    (StreamBroken, _LOST),
    (Cancelled, _LOST),  # by nobody here
    (TriuneError, _FAULT),
)


def of_server(error: TriuneError, fields: Mapping[str, str]) -> ApiError:
    """What a failed call to the server means to the client.

    Args:
        fields: what the server calls an input -> the field that the client sent.
    """
    meaning = _meaning(error)
    message = f"the server behind this one is not ready: {error.message}" if meaning is _NOT_READY else error.message
    asked_s = error.retry_after_s if isinstance(error, Overloaded) else None
    return ApiError(
        meaning.status,
        message,
        kind=meaning.kind,
        param=_field(error.param, fields),
        code=meaning.code,
        retry_after_s=(RETRY_AFTER_S if asked_s is None else asked_s) if meaning.retry else None,
    )


def _meaning(error: TriuneError) -> Meaning:
    if isinstance(error, StreamBroken) and isinstance(error.__cause__, StatusError):
        said = _meaning(error.__cause__)
        # What is wrong with a request is said before its answer begins, but that its own grammar cannot go on.
        return said if said.status >= 500 or error.__cause__.code == "unsupported" else _FAULT
    found = MEANINGS.get(error.code or "") if isinstance(error, StatusError) else None
    return found or next(meaning for kind, meaning in _BY_CLASS if isinstance(error, kind))


def _field(param: str | None, fields: Mapping[str, str]) -> str | None:
    """The client's name of an input, or of a part of one, such as `messages[0].content`; None if it sent no such field."""
    name = re.split(r"[.\[]", param or "")[0]
    return fields[name] + (param or "")[len(name) :] if name in fields else None
