"""TLS of what listens here: its certificate may be renewed while it serves, its handshakes take no longer than they may.

asyncio tells a protocol of its connection when the handshake is over: those that never end would be counted by nobody. So a
connection is a `Handshake` first, and is then handed to whoever serves it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from .certificate import CertificateError, Loaded, load

LOG = logging.getLogger(__name__)
_LOOK_S = 60.0
_GOODBYE_S = 2.0  # that a client has to say that it has seen the end


class Tls:
    """A certificate and its key, read again when their files change."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """
        Raises:
            CertificateError: no server can use them.
        """
        self._files = certificate, key
        self._seen = self._stamps()
        self.loaded: Loaded = load(certificate, key)

    def look(self) -> None:
        """Take what is in the files now, for connections that come from here on. What cannot be used is not taken."""
        if (stamps := self._stamps()) == self._seen:
            return
        self._seen = stamps
        try:
            self.loaded = load(*self._files)
            LOG.info("the TLS certificate in %s was read again", self._files[0])
        except CertificateError as error:  # half renewed, perhaps: the other file comes a moment later
            LOG.warning("the TLS certificate stays as it was: %s", error)

    async def watch(self, pause_s: float = _LOOK_S) -> None:
        """Look again and again; goes on for ever."""
        while True:
            await asyncio.sleep(pause_s)
            self.look()

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        """What tells each file from the one that was there before; None: there is none."""
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                stat = file.stat()
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
            except OSError:
                found.append(None)
        return found


class Handshake(asyncio.Protocol):
    """A connection until it speaks TLS; counted with all others, as one that waits for a request."""

    def __init__(
        self, tls: Tls, patience_s: float, make: Callable[[], asyncio.Protocol], connections: set[Any],
        admit: Callable[[Handshake], bool],
    ) -> None:  # fmt: skip
        """
        Args:
            patience_s: how long a client may take.
            make: who serves the connection then.
            connections: all that there are, this one as long as it is one.
            admit: puts it among them, where there is room.
        """
        self._tls, self._patience_s, self._make = tls, patience_s, make
        self._connections, self._admit = connections, admit
        self._early = b""  # what came before `make` could be told
        self._lost = False
        self.waits_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.waits_since = time.monotonic()
        if not self._admit(self):
            self.abort()  # it could not read an answer yet
            return
        self._transport.pause_reading()  # until TLS does
        self._shaking = asyncio.get_running_loop().create_task(self._shake())

    async def _shake(self) -> None:
        if self._lost:
            return
        try:
            over = await asyncio.get_running_loop().start_tls(
                self._transport, self, self._tls.loaded.context, server_side=True,
                ssl_handshake_timeout=self._patience_s, ssl_shutdown_timeout=_GOODBYE_S,
            )  # fmt: skip
        except OSError:  # no TLS, no version in common, too slow, gone
            over = None
        self._connections.discard(self)
        if over is None or self._lost:
            return
        served = self._make()
        over.set_protocol(served)
        served.connection_made(over)
        if self._early:
            served.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._connections.discard(self)

    def abort(self) -> None:
        """End it: there is no answer that the client could read."""
        self._transport.abort()

    shutdown = give_way = abort

    def expire(self, now: float) -> None:
        """It has its own time limit."""
