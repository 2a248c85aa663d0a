"""Kinds of failures, from a status or a message: one list for all protocols."""

from __future__ import annotations

import re

KINDS: dict[str, str] = {
    "overloaded": "refused for want of room: 429, 503, UNAVAILABLE, RESOURCE_EXHAUSTED",
    "refused": "the request was wrong to the server: 400, 422, INVALID_ARGUMENT",
    "unauthorized": "401, 403",
    "not found": "no such model or path: 404",
    "server error": "500 and the like, INTERNAL",
    "timeout": "nothing came for too long, or the server's own deadline passed",
    "no connection": "nothing listens there, or it does not accept",
    "broken": "the connection ended inside an answer",
    "garbled": "what came is not the protocol",
    "not ended": "still under way when the run gave up waiting",
}
_STATUS = {
    400: "refused", 401: "unauthorized", 403: "unauthorized", 404: "not found", 408: "timeout", 413: "refused", 422: "refused",
    429: "overloaded", 503: "overloaded", 504: "timeout", 499: "broken",
}  # fmt: skip
_CODES = {
    "UNAVAILABLE": "overloaded", "RESOURCE_EXHAUSTED": "overloaded", "INVALID_ARGUMENT": "refused", "NOT_FOUND": "not found",
    "UNAUTHENTICATED": "unauthorized", "PERMISSION_DENIED": "unauthorized", "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "server error", "UNKNOWN": "server error", "CANCELLED": "broken", "UNIMPLEMENTED": "refused",
    "FAILED_PRECONDITION": "refused", "OUT_OF_RANGE": "refused", "ABORTED": "server error", "DATA_LOSS": "server error",
}  # fmt: skip
_NO_CONNECTION = re.compile(r"failed to connect|connection refused|name resolution|resolution failed|dns", re.I)
_BROKEN = re.compile(r"socket closed|connection reset|broken pipe|goaway|stream removed|keepalive|transport", re.I)
_LEADING_CODE = re.compile(r"\s*(?:\[?request id: \S+\]?\s*)?([A-Z_]{5,20}):")


def of_status(status: int, message: str = "") -> str:
    """The kind for a status of HTTP. Triton 24.10 has 400 for everything: its message begins with the code."""
    if (code := _LEADING_CODE.match(message)) and code[1] in _CODES:
        return _CODES[code[1]]
    return _STATUS.get(status, "server error" if status >= 500 else "refused")


def of_code(code: str, message: str = "") -> str:
    """The kind for a code of gRPC."""
    if code == "UNAVAILABLE" and _NO_CONNECTION.search(message):
        return "no connection"
    if code == "UNAVAILABLE" and _BROKEN.search(message):
        return "broken"
    return _CODES.get(code, "server error")


def of_message(message: str) -> str:
    """The kind for an error inside a stream, which has no status."""
    if (code := _LEADING_CODE.match(message)) and code[1] in _CODES:
        return _CODES[code[1]]
    return "overloaded" if re.search(r"overload|queue is full|too many|capacity", message, re.I) else "server error"
