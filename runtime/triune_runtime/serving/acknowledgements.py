"""How the detokenize step tells the generate step which chunks it has seen, and whether their client is still there.

Triton cancels the next step of an ensemble when a client leaves, never the generator: this is how the generator learns of it.
Both steps are processes of one server, so the socket's name comes from their common parent, and from the folder of the engine
that they serve: a server may have several.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_MESSAGE = struct.Struct("<q?")  # request key, whether its client has left


def socket_name(server_pid: int, engine: Path | None = None) -> str:
    """The name of the socket of an engine of a server, in Linux's abstract namespace: no file, gone with its process."""
    which = "" if engine is None else f"-{hashlib.sha256(os.fsencode(engine)).hexdigest()[:16]}"
    return f"\0triune-acknowledgements-{server_pid}{which}"


class AcknowledgementSender:
    """The detokenize side. Never blocks for long and never fails a request: a lost message is like a slow one."""

    def __init__(self, server_pid: int | None = None, engine: Path | None = None) -> None:
        self._name = socket_name(server_pid or os.getppid(), engine)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)

    def send(self, key: int, *, cancelled: bool) -> bool:
        """Acknowledge a chunk of request `key`; False if nobody listens."""
        try:
            self._socket.sendto(_MESSAGE.pack(key, cancelled), self._name)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class AcknowledgementReceiver:
    """The generate side: a thread that hands each message to `acknowledge(key, cancelled=...)`."""

    def __init__(self, acknowledge: Callable[..., None], server_pid: int | None = None, engine: Path | None = None) -> None:
        self._acknowledge = acknowledge
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(socket_name(server_pid or os.getppid(), engine))
        self._thread = threading.Thread(target=self._receive_until_closed, name="triune-acknowledgements", daemon=True)
        self._thread.start()

    def _receive_until_closed(self) -> None:
        while True:
            message = self._socket.recv(_MESSAGE.size)
            if len(message) != _MESSAGE.size:  # an empty one: close() woke us
                return
            key, cancelled = _MESSAGE.unpack(message)
            self._acknowledge(key, cancelled=cancelled)

    def close(self) -> None:
        name = self._socket.getsockname()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", name)
        self._thread.join()
        self._socket.close()
