"""How long a connection may take for what: to say what it asks, to be idle, to read its answer; and how many there may be.

Who is too slow here is left without an answer: nobody that slow would read one. A body that comes slowly is `front`'s, one that
comes in a million pieces is not: each would cost some work before it could be refused.
"""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import RETRY_AFTER_S
from .settings import Settings
from .tls import Handshake, Tls

_OTHER_FILES = 64  # that the process has open besides its connections
_CHUNKS = 10_000  # that a body of unknown length may come in
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: %d\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s"
)
_IN_PIECES = (
    b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
)
_TOO_MANY_CHUNKS = (
    b'{"error": {"message": "the request\'s body comes in more than %b chunks; send it in fewer",'
    b' "type": "invalid_request_error", "param": null, "code": null}}' % f"{_CHUNKS:,}".encode()
)
_TOO_MANY = b'{"error": {"message": "too many connections", "type": "server_error", "param": null, "code": "overloaded"}}'


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol of one connection, with limits. Settings of its own are attributes of a subclass: see `bounded`."""

    most = 0
    head_s = 0.0
    write_s = 0.0

    def __init__(self, *args: Any, **more: Any) -> None:  # uvicorn's business
        super().__init__(*args, **more)
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None
        self._refused = False
        self._broken = False  # what else comes is not looked at
        self._chunks = 0
        self._next = self.conn.next_event
        self.conn.next_event = self._counted  # type: ignore[method-assign]

    def _counted(self) -> Any:
        """The next event of the connection.

        Raises:
            h11.RemoteProtocolError: it is one chunk too many.
        """
        event = self._next()
        if isinstance(event, h11.Request):
            self._chunks = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            if self._chunks > _CHUNKS:
                raise h11.RemoteProtocolError("too many chunks")
        return event

    def send_400_response(self, msg: str) -> None:
        self._broken = True
        if self.conn.our_state is not h11.SEND_RESPONSE and self.conn.our_state is not h11.IDLE:  # it is answered already
            self.transport.abort()
        elif self._chunks > _CHUNKS:
            self.transport.write(_IN_PIECES % (len(_TOO_MANY_CHUNKS), _TOO_MANY_CHUNKS))
            self.transport.close()
        else:
            super().send_400_response(msg)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most:
            self._refused = True
            transport.write(_FULL % (RETRY_AFTER_S, len(_TOO_MANY), _TOO_MANY))
            transport.close()
            return
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._broken:
            return
        super().data_received(data)
        if self._answering:
            _stop(self._head)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self._answering:
            _stop(self._head)
            self._head = self.loop.call_later(self.head_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            _stop(self._head)
            _stop(self._write)
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        if not self._refused:
            super().pause_writing()
            self._write = self.loop.call_later(self.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        if not self._refused:
            _stop(self._write)
            super().resume_writing()

    @property
    def _answering(self) -> bool:
        """Whether the head of a request has come, and its answer has not ended."""
        return self.cycle is not None and not self.cycle.response_complete

    def _too_slow(self) -> None:
        if not self._answering:
            self.transport.close()


def bounded(settings: Settings) -> type[BoundedProtocol]:
    """The protocol with these settings; connections also stay below what the system lets this process open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = settings.max_connections if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)

    class Protocol(BoundedProtocol):
        most = min(settings.max_connections, room)
        head_s = settings.head_timeout_s
        write_s = settings.write_timeout_s

    return Protocol


def over_tls(protocol: type[BoundedProtocol], tls: Tls) -> type[asyncio.Protocol]:
    """What makes a connection of `protocol` that begins with a handshake: for uvicorn, which calls it, a class."""

    def begin(*, server_state: Any, **more: Any) -> Handshake:
        connections: set[Any] = server_state.connections

        def admit(handshake: Handshake) -> bool:
            room = len(connections) < protocol.most
            if room:
                connections.add(handshake)
            return room

        return Handshake(tls, protocol.head_s, partial(protocol, server_state=server_state, **more), connections, admit)

    return cast(type[asyncio.Protocol], begin)


def configured(app: Any, settings: Settings, tls: Tls | None = None) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    protocol = bounded(settings)
    return uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="warning", access_log=False,
        server_header=False, ws="none", lifespan="on", timeout_graceful_shutdown=3,
        http=protocol if tls is None else over_tls(protocol, tls),
    )  # fmt: skip


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
