"""One connection of a client: reads a request, has it answered, and so on, each step within its time."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import cast

from ..access_log import HEADER, Access, request_id
from ..bearer import sent_key
from ..gates import Sent
from ..origins import foreign
from .bodies import check_body, ends_another, places
from .errors import FULL, words_of
from .reading import Reader, Request
from .refusal import Refusal
from .routes import find, model_of
from .shared import Shared, Site
from .upstream import Upstream, not_there, to_send

LEFT = 499  # in place of a status: the client went away before its answer was whole
_AHEAD_BYTES = 65_536  # of requests that are sent before the one before is answered
_UNREAD_BYTES = 262_144  # of an answer, before the server behind is made to wait
_LINGER_S = 2.0  # for a refusal to arrive while the client still sends


class Connection(asyncio.Protocol):
    """Client of `Upstream`, one of `Shared.connections`."""

    def __init__(self, shared: Shared, site: Site) -> None:
        self._shared, self._site = shared, site
        self._limits = shared.limits
        self._began = time.monotonic()
        self.waits_since: float | None = self._began
        self._deadline: float | None = None
        self._peer: str | None = None
        self._begin(self._limits.head_s)
        self._closing = self._lingers = False
        self._ahead = b""

    def _begin(self, patience_s: float) -> None:
        """Wait for a request."""
        now = time.monotonic()
        self._reader = Reader(self._limits, self._accept, self._go_on)
        self._access = Access(request_id=request_id(b""), client=self._peer, method="", path="")
        self._request: Request | None = None
        self._upstream: Upstream | None = None
        self._asking: asyncio.Task[None] | None = None
        self._client = ""  # whose share of the server it takes
        self._generates = False
        self._sent: Sent | None = None  # of one that passed a gate
        self._held = 0
        self._answered = False  # whether any of the answer has been sent
        self.waits_since, self._deadline = now, now + patience_s

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_UNREAD_BYTES)
        peer = transport.get_extra_info("peername")
        self._peer = self._access.client = peer[0] if peer else None
        if self._shared.closing or not self._shared.admit(self):
            self._turn_away(Refusal(503, "UNAVAILABLE [overloaded]: too many connections are open", retry=True))

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # nobody reads it any more
        if self._request is None:
            self._feed(data)
        else:
            self._ahead += data
            if len(self._ahead) > _AHEAD_BYTES:
                self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._shared.connections.discard(self)
        if self._request is not None or (self._reader.begun and not self._closing):
            self._end_request(LEFT)
        self._closing = True

    def pause_writing(self) -> None:
        self._deadline = time.monotonic() + self._limits.unread_s
        if self._upstream is not None and self._upstream.transport is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None and self._upstream.transport is not None:
            self._deadline = None
            self._upstream.transport.resume_reading()

    # A request

    def _feed(self, data: bytes) -> None:
        now = time.monotonic()
        if not self._reader.begun:
            self._began, self._deadline = now, now + self._limits.head_s
        had_head = self._reader.has_head
        try:
            found = self._reader.feed(data)
            self._hold(self._reader.size)
            if found is not None:
                self._request, self._ahead = found
                self._hold(len(self._request.body))
                tensors = self._request.path.endswith("/infer")
                check_body(self._request.body, self._request.headers, self._limits, tensors=tensors)
                self._enter(self._request)
        except Refusal as refusal:
            if self._request is None:
                self._turn_away(refusal)
            else:
                self.refuse(refusal)
            return
        if found is not None:
            self.waits_since = self._deadline = None
            self._asking = asyncio.get_running_loop().create_task(self._ask(found[0]))
        elif self._reader.has_head and not had_head:
            self._deadline = now + self._limits.body_s

    def _accept(self, request: Request) -> None:
        access, shared = self._access, self._shared
        access.request_id = request_id(request.headers.get(HEADER, b""))
        access.method, access.path = request.method, request.path
        if (why := foreign(request.headers, self._site.host, shared.allowed_origins)) is not None:
            raise Refusal(403, why)
        route = find(self._site.routes, request.method, request.path)
        access.tenant = shared.keys.tenant(sent_key(request.headers))
        if route.guarded and access.tenant is None:
            raise Refusal(401, "Incorrect or missing API key: send a header Authorization: Bearer KEY.")
        self._client, self._generates = shared.keys.client(request.headers, access.tenant, access.client), route.generates

    def _enter(self, request: Request) -> None:
        if not self._generates or ends_another(request.body):
            return
        self._sent = self._shared.gates.enter(model_of(request.path), self._client, places(request.body))
        if self._sent is None:
            raise Refusal(503, FULL, retry=True)

    def _go_on(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold(self, size: int) -> None:
        self._shared.held_bytes += size - self._held
        self._held = size
        if self._shared.held_bytes > self._limits.held_bytes:
            raise Refusal(503, "UNAVAILABLE [overloaded]: too much is being sent at once", retry=True)

    async def _ask(self, request: Request) -> None:
        told = self._client if self._generates and self._shared.fair_share else None
        self._upstream = Upstream(self, to_send(request, told))
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: cast(Upstream, self._upstream), self._site.upstream)
        except OSError:
            self.refuse(not_there())

    def _end_request(self, status: int = 0) -> None:
        """Forget it, and whoever works on it."""
        self._access.status = status or self._access.status
        self._shared.ended(self._access, self._began)
        self._shared.held_bytes -= self._held
        self._held = 0
        if self._upstream is not None:
            self._upstream.leave()
        if self._sent is not None:
            self._sent.ended()
        if self._asking is not None and self._asking is not asyncio.current_task():
            self._asking.cancel()
        self._request = self._upstream = self._asking = self._sent = None

    # What an answer calls

    def head(self, status: int, head: bytes, body: bytes) -> None:
        self._access.status, self._answered = status, True
        if self._sent is not None:
            self._sent.taken()
        more = b"x-request-id: %b\r\n" % self._access.request_id.encode("ascii")
        more += b"" if self._keeps else b"Connection: close\r\n"
        self._transport.write(head[:-2] + more + b"\r\n" + body)
        if body:
            self._access.first_chunk_s = time.monotonic() - self._began

    def body(self, data: bytes) -> None:
        if self._access.first_chunk_s is None:
            self._access.first_chunk_s = time.monotonic() - self._began
        self._transport.write(data)

    def end(self, *, keep: bool) -> None:
        keep = keep and self._keeps
        self._end_request()
        if not keep:
            self._close()
            return
        ahead, self._ahead = self._ahead, b""
        self._begin(self._limits.idle_s)
        if ahead:
            asyncio.get_running_loop().call_soon(self.data_received, ahead)

    def refuse(self, refusal: Refusal) -> None:
        if self._sent is not None:
            self._sent.taken()  # if the server has said nothing: it is not there, or ended
        self._access.status, self._access.error = refusal.status, HTTPStatus(refusal.status).phrase
        self._transport.write(refusal.render(self._access.request_id, close=not self._keeps))
        self.end(keep=True)

    def unavailable(self, message: str) -> None:
        if self._sent is not None:
            self._sent.failed(*words_of(message))
        self.refuse(Refusal(503, message, retry=True))

    def abort(self) -> None:
        self._transport.abort()

    @property
    def _keeps(self) -> bool:
        return self._request is not None and self._request.keep and not self._shared.closing

    # The end

    def _turn_away(self, refusal: Refusal) -> None:
        """Refuse what has not been read to its end: the connection is of no more use."""
        self._access.status, self._access.error = refusal.status, HTTPStatus(refusal.status).phrase
        self._transport.write(refusal.render(self._access.request_id, close=True))
        self._end_request()
        self._closing = True
        self._deadline = time.monotonic() + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS has no half of an end: who still sends when it comes would lose the answer
            self._lingers = True
        self._shared.connections.add(self)

    def _close(self) -> None:
        self._closing = True
        self._deadline = time.monotonic() + self._limits.unread_s
        self._transport.close()

    def give_way(self) -> None:
        """Make room for another."""
        self._turn_away(Refusal(408, "no whole request came in time")) if self._reader.begun else self._close()

    def expire(self, now: float) -> None:
        """End what has taken longer than it may."""
        if self._deadline is None or now < self._deadline:
            return
        if self._lingers:
            self._lingers = False
            self._close()
        elif self._closing or self._request is not None:
            self.abort()
        else:
            self.give_way()
