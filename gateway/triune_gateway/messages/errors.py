"""Errors in Anthropic's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ApiError

MESSAGES = "/v1/messages"  # paths that begin so speak Anthropic's protocol
_TYPES: Mapping[int, str] = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


def anthropic_error(error: ApiError) -> dict[str, Any]:
    """The JSON object of the answer: `{"type": "error", "error": {type, message}}`; the field at fault begins the message."""
    kind = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    message = error.message if error.param is None else f"{error.param}: {error.message}"
    return {"type": "error", "error": {"type": kind, "message": message}}
