"""Reads HTTP/1.1 responses: bytes in pieces of any size in, the body's bytes out. No socket.

A library would do it too; a load test reads ten thousand chunks a second on one core, and must not be what it measures.
"""

from __future__ import annotations


class HttpError(Exception):
    """What came is not HTTP/1.1."""


_HEAD, _SIZE, _CHUNK, _CHUNK_END, _TRAILER, _LENGTH, _TO_END, _DONE = range(8)


class ResponseParser:
    """One response. Look at `status`, `headers` and `complete` after each `feed`."""

    def __init__(self) -> None:
        self.status = 0  # until the head is read
        self.headers: dict[str, str] = {}  # names in lower case
        self.complete = False
        self._state = _HEAD
        self._buffer = b""
        self._left = 0  # of a chunk or a body of known length

    @property
    def keeps_open(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.headers.get("connection", "").lower() != "close" and self.complete and not self._buffer

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body ends where the connection does."""
        return self._state == _TO_END

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`.

        Raises:
            HttpError: it is no HTTP.
        """
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        at, size, body = 0, len(data), []
        while at < size:
            if self._state == _CHUNK or self._state == _LENGTH:
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    if self._state == _LENGTH:
                        self._finish()
                    else:
                        self._state = _CHUNK_END
            elif self._state == _TO_END:
                body.append(data[at:])
                at = size
            elif self._state == _DONE:
                self._buffer = data[at:]  # more than was asked for: the connection must not be used again
                break
            else:
                mark = b"\r\n\r\n" if self._state == _HEAD else b"\r\n"
                end = data.find(mark, at)
                if end < 0:
                    if size - at > 65536:
                        raise HttpError(f"a line of {size - at} bytes does not end")
                    self._buffer = data[at:]
                    break
                self._line(data[at:end])
                at = end + len(mark)
        return b"".join(body)

    def end(self) -> None:
        """The connection ended: right where the body ends with it."""
        if self._state == _TO_END:
            self._finish()

    def _finish(self) -> None:
        self._state, self.complete = _DONE, True

    def _line(self, line: bytes) -> None:
        if self._state == _HEAD:
            self._head(line)
        elif self._state == _SIZE:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise HttpError(f"the size of a chunk is {line[:40]!r}") from None
            self._state = _CHUNK if self._left else _TRAILER
        elif self._state == _CHUNK_END:
            if line:
                raise HttpError(f"a chunk is followed by {line[:40]!r}")
            self._state = _SIZE
        elif not line:  # of the trailer: the last
            self._finish()

    def _head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise HttpError(f"the response begins with {first[:60]!r}")
        self.status = int(parts[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._state = _SIZE
        elif "content-length" in self.headers:
            if not self.headers["content-length"].isdigit():
                raise HttpError(f"content-length is {self.headers['content-length'][:40]!r}")
            self._left = int(self.headers["content-length"])
            self._state = _LENGTH
            if not self._left:
                self._finish()
        elif self.status in (204, 304):
            self._finish()
        else:
            self._state = _TO_END
