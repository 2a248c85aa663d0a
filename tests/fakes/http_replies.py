"""A server over a transport without a network: what it answers is written down beforehand."""

from __future__ import annotations

import json
from typing import Any

import httpx


def event(text: str, reason: str = "", **more: Any) -> str:
    return f"data: {json.dumps({'text_output': text, 'finish_reason': reason, **more})}\n\n"


def replies(*bodies: str | httpx.Response) -> httpx.MockTransport:
    """Answers the n-th request with the n-th body; cancel requests with 200."""
    waiting = list(bodies)

    def handle(request: httpx.Request) -> httpx.Response:
        if b'"cancel"' in request.content:
            return httpx.Response(200, json={})
        body = waiting.pop(0)
        return body if isinstance(body, httpx.Response) else httpx.Response(200, content=body.encode())

    return httpx.MockTransport(handle)
