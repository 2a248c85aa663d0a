"""One request at the server behind: sent whole, its answer passed on as it comes."""

from __future__ import annotations

import asyncio
import json
from typing import Protocol, cast

from ..bearer import CLIENT
from . import errors
from .framing import BadAnswer, Framing
from .reading import Request
from .refusal import Refusal

# What the server behind reads; nothing else of a client's is passed on.
_PASSED = (
    b"content-type", b"accept", b"accept-encoding", b"inference-header-content-length", b"endpoint-load-metrics-format",
    b"traceparent", b"tracestate",
)  # fmt: skip
_NOT_THERE = "UNAVAILABLE [not_ready]: the server behind this one is starting; send the request again"


class Client(Protocol):
    """Who gets an answer."""

    def head(self, status: int, head: bytes, body: bytes) -> None: ...
    def body(self, data: bytes) -> None: ...
    def end(self, *, keep: bool) -> None: ...
    def refuse(self, refusal: Refusal) -> None: ...
    def unavailable(self, message: str) -> None: ...
    def abort(self) -> None: ...


def to_send(request: Request, client: str | None = None) -> bytes:
    """A request as it is sent on: every length in it is this front's own.

    Args:
        client: whose it is, where the server behind is to be told.
    """
    body = request.body
    if client is not None and not request.path.endswith("/infer"):
        body = told(body, client)
    lines = [
        b"%b %b HTTP/%b" % (request.method.encode("ascii"), request.path.encode("ascii"), request.version),
        b"Host: triton",
    ]
    lines += [b"%b: %b" % (name, request.headers[name]) for name in _PASSED if name in request.headers]
    if client is not None:
        lines.append(f"{CLIENT}: {client}".encode("ascii"))
    if request.method == "POST":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def told(body: bytes, client: str) -> bytes:
    """The body of a `generate` with the member that says whose it is: Triton 24.10 makes no parameters of its headers.

    It makes them of members, in their order, each of the first of its name; and of those of an object `parameters` where that
    stands. The last one counts. So it is said at the beginning and at the end: nothing that the client says of it does.
    """
    begin, end = body.find(b"{") + 1, body.rfind(b"}")
    member = json.dumps({CLIENT: client})[1:-1].encode()
    rest = body[begin:end]
    said = b",".join([member, rest, member]) if rest.strip() else member
    return body[:begin] + said + body[end:] if 0 < begin <= end else body


class Upstream(asyncio.Protocol):
    """The connection to the server behind, for one request. Closing it has the server stop working on the request."""

    def __init__(self, client: Client, to_send: bytes) -> None:
        self._client, self._to_send = client, to_send
        self._framing = Framing()
        self._held: bytes | None = None  # of an answer that is looked at before it is passed on
        self._ended = False
        self._torn = False  # whether some of an answer was taken in, and not passed on to its end
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._ended:
            self.transport.close()
            return
        self.transport.write(self._to_send)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._torn:
            # What was taken in before is lost: memory was short, say, even to close the connection for it. An answer with a
            # gap in it must not look whole.
            self._broken("an answer could not be passed on")
            return
        self._torn = True
        try:
            self._take(data)
        except BadAnswer:
            self._broken("the server behind sent no HTTP")
        self._torn = False

    def _take(self, data: bytes) -> None:
        framing = self._framing
        if not framing.status:
            rest = framing.take_head(data)
            if rest is None:
                return
            data = rest
            if framing.refuses and framing.length is not None and framing.length <= errors.LONGEST:
                self._held = b""
            framing.take_body(data)
            if self._held is None:
                self._client.head(framing.status, framing.head, data)
            else:
                self._held += data
        else:
            framing.take_body(data)
            if self._held is None:
                self._client.body(data)
            else:
                self._held += data
        if framing.done:
            self._whole()

    def _whole(self) -> None:
        self._end()
        if self._held is not None:
            if (message := errors.unavailable(self._held)) is not None:
                self._client.unavailable(message)
                return
            self._client.head(self._framing.status, self._framing.head, self._held)
        self._client.end(keep=not self._framing.until_close)

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self.transport is not None:
            self.transport.close()

    def _broken(self, why: str) -> None:
        self._end()
        if self._framing.status and self._held is None:
            self._client.abort()  # some of the answer is with the client: only an end tells it that the rest is missing
        else:
            self._client.refuse(Refusal(503, f"UNAVAILABLE [not_ready]: {why}; send the request again", retry=True))

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended:
            return
        if self._framing.until_close and error is None:
            self._whole()
        else:
            self._broken("the server behind ended, and is starting again")


def not_there() -> Refusal:
    """What a client is told while nothing listens."""
    return Refusal(503, _NOT_THERE, retry=True)
