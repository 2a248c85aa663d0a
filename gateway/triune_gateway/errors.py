"""Errors in OpenAI's shape, and which of them a failure of the server behind becomes. Knows statuses; no sockets."""

from __future__ import annotations

import math
from typing import Any, Literal

from triune_client import BadRequest, ConnectError, NotFound, Overloaded, TimeoutError_, TriuneError

ErrorType = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
_FIELDS = ("response_format", "tool_choice", "tools")  # of which the server's messages name parts
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


def of_server(error: TriuneError) -> ApiError:
    """What a failed call to the server means to the client."""
    if isinstance(error, BadRequest):
        code = "context_length_exceeded" if "this engine holds" in error.message else None
        named = next((name for name in _FIELDS if error.message.startswith(name)), None)
        return invalid(error.message, "n" if "sequences are asked for" in error.message else named, code)
    if isinstance(error, Overloaded):
        after_s = RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        return ApiError(503, error.message, kind="server_error", code="overloaded", retry_after_s=after_s)
    if isinstance(error, ConnectError | NotFound):  # it starts, or starts again
        message = f"the server behind this one is not ready: {error.message}"
        return ApiError(503, message, kind="server_error", code="not_ready", retry_after_s=RETRY_AFTER_S)
    if isinstance(error, TimeoutError_):
        return ApiError(504, error.message, kind="server_error", code="timeout")
    return ApiError(500, error.message, kind="server_error")
