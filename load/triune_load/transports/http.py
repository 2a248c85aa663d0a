"""HTTP/1.1 for many streams at once: a pool of connections; chunks get their time as they leave the socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from ..core.answer import Answer, Failure
from ..core.failures import of_status
from ..core.request import Request
from ..errors import LoadError
from ..protocols.adapter import Garbled, HttpAdapter, error_text, text_of, to_object
from ..trust import PUBLIC, Trust
from .http_parser import HttpError, ResponseParser
from .sse import SseSplitter

Now = Callable[[], float]
_CLOSES_WITHIN_S = 0.25
_IDLE_S = 2.0  # servers close connections that are idle for longer, the most impatient after some seconds


class HttpTransport:
    """Sends requests of one protocol to one server.

    Args:
        url: of the server, without a path of the protocol's.
        headers: sent with every request.
        trust: of a server that speaks TLS.
        reuse: whether a connection takes another request after its answer.
        now: the run's clock, in seconds.

    Raises:
        LoadError: the URL is none of HTTP.
    """

    def __init__(
        self, url: str, adapter: HttpAdapter, *, headers: Mapping[str, str] | None = None, trust: Trust = PUBLIC,
        reuse: bool = True, now: Now = time.monotonic,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LoadError(f"url is {url!r}; expected something like http://127.0.0.1:8003")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/").removesuffix("/v1")  # the adapters' paths begin with it
        self._ssl = trust.context if parts.scheme == "https" else None
        self._name = trust.server_name if parts.scheme == "https" else None
        lines = {"Host": parts.netloc, "Content-Type": "application/json", "Accept": "*/*"} | dict(headers or {})
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._adapter, self._now, self._reuse = adapter, now, reuse
        self._idle: list[tuple[float, _Connection]] = []

    def prepare(self, request: Request) -> bytes:
        """The bytes of a request, made before it is due."""
        path, body = self._adapter.encode(request)
        return f"POST {self._path}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def send(self, prepared: bytes, answer: Answer) -> None:
        """Sends and fills the answer; what goes wrong is in the answer. Cancelling it closes the connection."""
        connection = self._free() or await self._connect(answer)
        if connection is None:
            return
        try:
            exchange = _Exchange(answer, self._adapter, self._now)
            answer.sent = answer.seen = self._now()
            connection.begin(prepared, exchange)
            await exchange.over.wait()
        except BaseException:
            connection.abort()
            raise
        if connection.usable and self._reuse:
            self._idle.append((self._now(), connection))
        else:
            connection.abort()

    def _free(self) -> _Connection | None:
        """An open connection that was used a moment ago: nothing is sent twice, so none is risked that a server may close."""
        while self._idle:
            since, connection = self._idle.pop()
            if connection.usable and self._now() - since < _IDLE_S:
                return connection
            connection.abort()
        return None

    async def stays_open(self) -> bool:
        """Whether the server leaves the connection of the last answer open. Some close it after a stream and do not say so."""
        await asyncio.sleep(_CLOSES_WITHIN_S)
        return any(connection.usable for _, connection in self._idle)

    async def close(self) -> None:
        """Closes the idle connections."""
        for _, connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def _connect(self, answer: Answer) -> _Connection | None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                _Connection, self._host, self._port, ssl=self._ssl, server_hostname=self._name
            )
            return connection
        except OSError as error:
            answer.failure = Failure("no connection", f"{self._host}:{self._port}: {error.strerror or error}")
            answer.ended = self._now()
            return None


class _Connection(asyncio.Protocol):
    """One connection: an exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._exchange: _Exchange | None = None
        self._closed = False

    @property
    def usable(self) -> bool:
        """Whether the next request may use it."""
        alone = self._exchange is None or self._exchange.keeps_open
        return alone and not self._closed and self._transport is not None and not self._transport.is_closing()

    def begin(self, data: bytes, exchange: _Exchange) -> None:
        """Sends a request; the exchange gets what comes back."""
        self._exchange = exchange
        if self._closed or self._transport is None or self._transport.is_closing():
            exchange.lost(None)
            return
        exchange.connection = self._transport
        self._transport.write(data)

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        if self._exchange is not None:
            self._exchange.lost(error)


class _Exchange:
    """One request's response, from its first byte to its end."""

    def __init__(self, answer: Answer, adapter: HttpAdapter, now: Now) -> None:
        self.over = asyncio.Event()
        self.connection: asyncio.Transport | None = None
        self._answer, self._adapter, self._now = answer, adapter, now
        self._parser, self._events = ResponseParser(), SseSplitter()
        self._body: list[bytes] = []  # of what is not streamed
        self._touched = False

    @property
    def keeps_open(self) -> bool:
        return self._parser.keeps_open

    def feed(self, data: bytes) -> None:
        """More bytes."""
        if self.over.is_set():
            return
        at, self._touched = self._now(), True
        try:
            body = self._parser.feed(data)
        except HttpError as error:
            self._fail("garbled", str(error))
            return
        if self._parser.status == 200 and self._answer.request.stream:
            for event in self._events.feed(body):
                self._take(at, event)
                if self.over.is_set():
                    return
        else:
            self._body.append(body)
        if self._parser.complete:
            self._complete(at)
        elif self._answer.request.cancel_after == 0 and not self._answer.times:
            self._leave()

    def lost(self, error: Exception | None) -> None:
        """The connection ended."""
        if self.over.is_set():
            return
        self._parser.end()
        if self._parser.complete:
            self._complete(self._now())
        elif not self._touched:
            self._fail("broken", f"the connection ended before an answer came: {error or 'closed by the server'}")
        else:
            self._fail("broken", f"the connection ended inside the answer: {error or 'closed by the server'}")

    def _take(self, at: float, data: bytes) -> None:
        answer = self._answer
        decode = self._adapter.decode if answer.request.stream else self._adapter.decode_whole
        try:
            answer.take(at, decode(text_of(data)))
        except Garbled as garbled:
            answer.malformed.append((garbled.check, str(garbled)))
        except Exception as error:  # the adapter did not expect this shape
            answer.malformed.append(("json", f"an event has an unknown shape ({error!r}): {data[:120]!r}"))
        if answer.request.cancel_after is not None and len(answer.times) >= answer.request.cancel_after and not answer.finishes:
            self._leave()
        elif answer.request.read_delay_s and self.connection is not None:
            self.connection.pause_reading()
            asyncio.get_running_loop().call_later(answer.request.read_delay_s, self._resume, self.connection)

    @staticmethod
    def _resume(connection: asyncio.Transport) -> None:
        with contextlib.suppress(RuntimeError):  # it is closing
            connection.resume_reading()

    def _complete(self, at: float) -> None:
        answer, status = self._answer, self._parser.status
        if status != 200:
            text = b"".join(self._body).decode("utf-8", "replace")
            message = _message(text) or f"status {status}"
            answer.failure = Failure(of_status(status, message), message[:300])
        elif not answer.request.stream:
            self._take(at, b"".join(self._body))
        elif self._events.rest:
            answer.malformed.append(("complete", f"the stream ended inside an event: {self._events.rest[:80]!r}"))
        answer.closed = True
        answer.ended = at
        self.over.set()

    def _leave(self) -> None:
        self._answer.cancelled = True
        self._answer.ended = self._now()
        self.over.set()
        if self.connection is not None:
            self.connection.abort()

    def _fail(self, kind: str, message: str) -> None:
        if self._answer.failure is None:
            self._answer.failure = Failure(kind, message)
        self._answer.ended = self._now()
        self.over.set()


def _message(text: str) -> str:
    """What an error's body says."""
    try:
        return error_text(to_object(text.strip().removeprefix("data:").strip())) or text
    except Garbled:
        return text
