"""How answers travel: JSON, server-sent events, and noticing that nobody waits for them any more. Knows ASGI only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Send

from .errors import ApiError
from .messages.errors import MESSAGES, anthropic_error

_EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies of nginx's kind hold events back otherwise
)
_DONE = b"data: [DONE]\n\n"
# Those that JSON leaves as they are; it can only have them inside strings.
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class JsonResponse(JSONResponse):
    """JSON in UTF-8, whatever broken text of a client's an error cites."""

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(value: Any) -> bytes:
    """Compact UTF-8 without any line end, also of Unicode's: some clients split events at those; half a surrogate pair becomes
    a question mark."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (text if text.isascii() else text.translate(_LINE_ENDS)).encode("utf-8", "replace")


def error_response(error: ApiError, path: str) -> JsonResponse:
    """An error as an answer of its own, as the clients of `path` expect it."""
    body = anthropic_error(error) if path.startswith(MESSAGES) else error.body
    return JsonResponse(body, error.status, error.headers)


class EventSender:
    """One event stream; its head goes out with the first event, so that a failure before it can have a status of its own."""

    def __init__(self, send: Send, *, named: bool) -> None:
        """
        Args:
            named: events are named after their type, and none says that there are no more; otherwise they end in [DONE].
        """
        self._send, self._named = send, named
        self._lock = asyncio.Lock()  # several choices share the stream
        self.started = False

    async def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Sends events; none is fine."""
        if events:
            await self._write(b"".join(map(self._event, events)), more=True)

    async def end(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Sends the last events and closes the stream."""
        await self._write(b"".join([*map(self._event, events), b"" if self._named else _DONE]), more=False)

    def _event(self, event: Mapping[str, Any]) -> bytes:
        name = b"event: %b\n" % event["type"].encode() if self._named else b""
        return b"%bdata: %b\n\n" % (name, to_json(event))

    async def _write(self, body: bytes, *, more: bool) -> None:
        async with self._lock:
            if not self.started:
                self.started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_STREAM)})
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs `work` to its end, or cancels it when the client leaves.

    Raises:
        ClientLeft: it did.
        Exception: whatever `work` raises.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        task.result()
    except OSError:
        raise ClientLeft from None  # it left while something was being sent
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Waits for the end of the connection; the request has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
