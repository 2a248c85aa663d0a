"""JSON messages over a stream socket, each behind its length. UTF-8, where half a surrogate pair may be, as in JSON."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<Q")


def send(connection: socket.socket, message: Any) -> None:
    """
    Raises:
        OSError: the other end is closed, or takes nothing for too long.
    """
    send_bytes(connection, json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def send_bytes(connection: socket.socket, message: bytes) -> None:
    """As `send`, what is JSON already."""
    connection.sendall(_LENGTH.pack(len(message)))
    connection.sendall(message)


def receive(connection: socket.socket) -> bytes:
    """The next message, which `json.loads` takes.

    Raises:
        OSError: the other end is closed, or says nothing for too long.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return bytes(_exactly(connection, length))


def _exactly(connection: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionResetError("the other end is closed")
        view = view[count:]
    return found
