"""Reads one request from a connection, within bounds and without room for doubt about where it ends.

h11 parses. What it would take with good will, such as a header that goes on in the next line or two statements of a body's
length, is refused before: whatever stands before this front might understand it otherwise.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import h11

from .limits import Limits
from .refusal import Refusal

_END = b"\r\n\r\n"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
_LENGTH = re.compile(rb"content-length:[ \t]*\d{1,15}[ \t]*", re.IGNORECASE)
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"content-encoding", b"content-type", b"authorization", b"origin",
         b"x-api-key", b"inference-header-content-length")  # fmt: skip
_CODINGS = {b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}


@dataclass(slots=True)
class Request:
    """One request; `body` is whole, and as it was before it was compressed."""

    method: str
    path: str  # without the query
    version: bytes  # b"1.0" or b"1.1"
    headers: dict[bytes, bytes]  # by names in lower case
    body: bytes = b""
    keep: bool = True  # whether the client wants to go on with the connection
    pieces: list[bytes] = field(default_factory=list)


class Reader:
    """Takes bytes until they are a request."""

    def __init__(self, limits: Limits, accept: Callable[[Request], None], go_on: Callable[[], None]) -> None:
        """
        Args:
            accept: called when the head is there, before the body: may raise `Refusal`.
            go_on: called where the client waits to be told that its body is wanted.
        """
        self._limits, self._accept, self._go_on = limits, accept, go_on
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._head = b""
        self._request: Request | None = None
        self._chunks = 0
        self.size = 0  # bytes of the body so far

    @property
    def begun(self) -> bool:
        """Whether anything of a request has come."""
        return bool(self._head)

    @property
    def has_head(self) -> bool:
        return self._request is not None

    def feed(self, data: bytes) -> tuple[Request, bytes] | None:
        """Take what has come; the request once it is whole, and what has come after it.

        Raises:
            Refusal: it is malformed, or too much.
        """
        if self._request is None:
            self._head = (self._head + data).removeprefix(b"\r\n") if len(self._head) < 2 else self._head + data
            end = self._head.find(_END)
            if end > self._limits.head_bytes or (end < 0 and len(self._head) > self._limits.head_bytes):
                raise Refusal(431, f"the request's headers are longer than {self._limits.head_bytes:,} bytes")
            if end < 0:
                if b"\n" in self._head.replace(b"\r\n", b""):
                    raise Refusal(400, "a line of the request's head does not end in CR LF")
                return None
            self._check_head(self._head[:end].split(b"\r\n"))
            data = self._head
        return self._parse(data)

    def _parse(self, data: bytes) -> tuple[Request, bytes] | None:
        try:
            self._parser.receive_data(data)
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    self._take(event)
                elif isinstance(event, h11.EndOfMessage):
                    return self._whole(), self._parser.trailing_data[0]
                else:
                    return None
        except h11.RemoteProtocolError as error:
            raise Refusal(error.error_status_hint, f"the request is no valid HTTP/1.1: {error}") from None

    def _check_head(self, lines: list[bytes]) -> None:
        if len(lines) - 1 > self._limits.headers:
            raise Refusal(431, f"the request has more than {self._limits.headers} headers")
        names = []
        for line in lines[1:]:
            if (name := _NAME.match(line)) is None:
                raise Refusal(400, "a header of the request is malformed, or goes on in the next line")
            names.append(name[0][:-1].lower())
            if names[-1] == b"content-length" and _LENGTH.fullmatch(line) is None:
                raise Refusal(400, "the header Content-Length is no number")
        if any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines):
            raise Refusal(400, "the request's head has a CR, LF or NUL where none may be")
        if twice := [name for name in _ONCE if names.count(name) > 1]:
            raise Refusal(400, f"the request has more than one header {twice[0].decode()}")
        if b"content-length" in names and b"transfer-encoding" in names:
            raise Refusal(400, "the request has both Content-Length and Transfer-Encoding")

    def _begin(self, event: h11.Request) -> None:
        headers = dict(event.headers)
        path = bytes(event.target).partition(b"?")[0].decode("ascii", "replace")
        keep = self._keeps(headers, event.http_version)
        self._request = Request(event.method.decode("ascii"), path, event.http_version, headers, keep=keep)
        if event.http_version not in (b"1.0", b"1.1"):
            raise Refusal(505, "HTTP/1.1 is expected")
        if event.http_version == b"1.0" and b"transfer-encoding" in headers:
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
        length = int(headers.get(b"content-length", b"0"))
        self._check_size(length)
        coding = headers.get(b"content-encoding", b"identity").lower()
        if coding not in (b"identity", *_CODINGS):
            raise Refusal(400, f"the header content-encoding is {coding.decode('latin-1')!r}; gzip or deflate can be read")
        self._accept(self._request)
        if self._parser.they_are_waiting_for_100_continue:
            self._go_on()

    @staticmethod
    def _keeps(headers: dict[bytes, bytes], version: bytes) -> bool:
        said = [one.strip().lower() for one in headers.get(b"connection", b"").split(b",")]
        return b"close" not in said and (version == b"1.1" or b"keep-alive" in said)

    def _take(self, event: h11.Data) -> None:
        assert self._request is not None, "data come after a head"
        self._chunks += event.chunk_start
        if self._chunks > self._limits.chunks:
            raise Refusal(413, f"the request's body comes in more than {self._limits.chunks:,} chunks")
        self.size += len(event.data)
        self._check_size(self.size)
        self._request.pieces.append(bytes(event.data))

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise Refusal(413, f"the request's body is larger than {self._limits.body_bytes:,} bytes")

    def _whole(self) -> Request:
        assert self._request is not None, "an end comes after a head"
        request = self._request
        request.body = b"".join(request.pieces)
        request.pieces.clear()
        coding = request.headers.get(b"content-encoding", b"identity").lower()
        if coding in _CODINGS and request.body:
            request.body = self._decompressed(request.body, _CODINGS[coding])
        return request

    def _decompressed(self, body: bytes, bits: int) -> bytes:
        unpacking = zlib.decompressobj(bits)
        try:
            whole = unpacking.decompress(body, self._limits.body_bytes + 1)
        except zlib.error:
            raise Refusal(400, "the request's body is not compressed as Content-Encoding says") from None
        self._check_size(len(whole))
        if not unpacking.eof or unpacking.unused_data:
            raise Refusal(400, "the request's body is not compressed as Content-Encoding says")
        return whole
