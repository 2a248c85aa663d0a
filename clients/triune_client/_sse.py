"""Splits a server-sent event stream into the data of its events. Bytes in, text out: no sockets, no JSON."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class SseDecoder:
    """Takes bytes in pieces of any size; lines end in \\n, \\r\\n or \\r. Other fields than `data` are ignored."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # an unfinished line
        self._data: list[bytes] = []  # data lines of an unfinished event
        self._after_cr = False  # the last byte seen was \r: a \n that follows belongs to it
        self._first_line = True

    def feed(self, piece: bytes) -> list[str]:
        """The data of every event that `piece` completes, oldest first.

        Raises:
            UnicodeDecodeError: an event is not UTF-8.
        """
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        *complete, rest = _LINE_END.split(piece)
        events: list[str] = []
        for line in complete:
            self._buffer += line
            self._end_line(bytes(self._buffer), events)
            self._buffer.clear()
        self._buffer += rest
        return events

    def _end_line(self, line: bytes, events: list[str]) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode())
                self._data.clear()
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
