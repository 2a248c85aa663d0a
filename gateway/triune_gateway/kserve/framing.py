"""Where an answer of the server behind ends. Its bytes are passed on as they come; nothing of them is changed but refusals."""

from __future__ import annotations

import re

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class BadAnswer(Exception):
    """The server behind sent what is no answer."""


class Framing:
    """Counts an answer's bytes to its end."""

    def __init__(self) -> None:
        self.head = b""  # with the empty line, once it is whole
        self.status = 0
        self.done = False
        self.until_close = False
        self.length: int | None = None
        self._left = 0  # of the body, or of the chunk and the line end after it
        self._chunked = self._last = False
        self._line = b""

    @property
    def refuses(self) -> bool:
        """Whether it is Triton's status for every error of a model."""
        return self.status == 400

    def take_head(self, data: bytes) -> bytes | None:
        """Take bytes until the head is whole; then what has come after it.

        Raises:
            BadAnswer: it is none.
        """
        self.head += data
        end = self.head.find(_END)
        if end < 0:
            return None
        rest, self.head = self.head[end + 4 :], self.head[: end + 4]
        if (status := _STATUS.match(self.head)) is None:
            raise BadAnswer
        self.status = int(status[1])
        if _CHUNKED.search(self.head):
            self._chunked = True
        elif length := _LENGTH.search(self.head):
            self.length = self._left = int(length[1])
            self.done = not self._left
        else:
            self.until_close = True
        return rest

    def take_body(self, data: bytes) -> None:
        """Count bytes of the body.

        Raises:
            BadAnswer: they are not as the head says.
        """
        at = 0
        while at < len(data) and not self.until_close:
            if self._left:
                step = min(self._left, len(data) - at)
                at += step
                self._left -= step
                self.done = not self._left and (self._last or not self._chunked)
            elif self.done or not self._chunked:
                raise BadAnswer
            else:
                at = self._take_size(data, at)

    def _take_size(self, data: bytes, at: int) -> int:
        """Take the line before a chunk; where it ends."""
        end = data.find(b"\n", at) + 1 or len(data)
        self._line += data[at:end]
        if self._line.endswith(b"\n"):
            try:
                size = int(self._line.partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer from None
            self._left, self._last, self._line = size + 2, size == 0, b""
        return end
