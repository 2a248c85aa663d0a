"""What two doctors say to each other: a line of JSON each, then what is measured. Who listens does only what it offered."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from .. import __version__
from ..errors import ServerError

HELLO = "triune-doctor"
LONGEST = 4096  # bytes of a line
MOST_SECONDS = 30.0  # of one measurement
PIECE = 1 << 20  # bytes handed over at once
_LATE_S = 10.0  # for what was sent to come
PING = 64  # bytes of a message whose way is timed


class Line:
    """A connection on which lines are said and heard."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def say(self, **message: Any) -> None:
        """Send one message."""
        self.connection.sendall(json.dumps(message).encode("ascii") + b"\n")

    def hear(self) -> dict[str, Any]:
        """The next message.

        Raises:
            ServerError: the other side is gone, or is no doctor.
        """
        heard = bytearray()
        while not heard.endswith(b"\n"):
            one = self.connection.recv(1)  # byte by byte: what follows is not for this
            if not one or len(heard) >= LONGEST:
                raise ServerError("the other side ended the connection, or speaks another protocol", _VERSIONS)
            heard += one
        try:
            message = json.loads(heard)
        except (ValueError, RecursionError) as error:
            raise ServerError(f"the other side says {bytes(heard[:60])!r}", _VERSIONS) from error
        if not isinstance(message, dict):
            raise ServerError(f"the other side says {message!r:.60}", _VERSIONS)
        return message

    def read(self, size: int) -> None:
        """Take in so many bytes.

        Raises:
            ServerError: the other side is gone.
        """
        while size:
            if not (part := self.connection.recv(min(size, PIECE))):
                raise ServerError("the other side ended the connection", _VERSIONS)
            size -= len(part)


_VERSIONS = "run `triune doctor --listen PORT` of the same version there"


def hello(**more: Any) -> dict[str, Any]:
    """The first message of each side."""
    return {"hello": HELLO, "version": __version__, "host": socket.gethostname(), **more}


def pour(connection: socket.socket, seconds: float) -> None:
    """Send for some time as much as goes."""
    piece, end = memoryview(bytearray(PIECE)), time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)


def drink(connection: socket.socket) -> tuple[int, float]:
    """Take in all that comes; bytes, and seconds from the first to the last.

    Raises:
        OSError: it does not end.
    """
    room, size, first, last = bytearray(PIECE), 0, 0.0, 0.0
    while got := connection.recv_into(room):
        last = time.monotonic()
        first = first or last
        size += got
        if last - first > MOST_SECONDS + _LATE_S:
            raise TimeoutError(f"more is sent than for {MOST_SECONDS:.0f} s")
    return size, last - first
