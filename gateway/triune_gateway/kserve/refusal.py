"""What the front answers by itself: an error in KServe's shape."""

from __future__ import annotations

import json
from http import HTTPStatus

RETRY_AFTER_S = 1


class Refusal(Exception):
    """A request that does not reach the server behind."""

    def __init__(self, status: int, message: str, *, retry: bool = False) -> None:
        """
        Args:
            retry: whether the same request may succeed a moment later.
        """
        super().__init__(message)
        self.status, self.message, self.retry = status, message, retry

    def render(self, request_id: str, *, close: bool, head_only: bool = False) -> bytes:
        """The whole answer, as it is sent."""
        return answer(self.status, self.message, request_id, close=close, retry=self.retry, head_only=head_only)


def answer(status: int, message: str, request_id: str, *, close: bool, retry: bool, head_only: bool = False) -> bytes:
    """An error as an answer of its own."""
    body = json.dumps({"error": message}, separators=(",", ":")).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("x-request-id", request_id)]
    headers += [("Retry-After", str(RETRY_AFTER_S))] if retry else []
    headers += [("WWW-Authenticate", "Bearer")] if status == HTTPStatus.UNAUTHORIZED else []
    headers += [("Connection", "close")] if close else []
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head_only else body)
