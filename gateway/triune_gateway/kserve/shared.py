"""What the connections of one front share: its bounds, its keys, its log, and how much of it is in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from ..access_log import Access, AccessLog
from ..bearer import Keys
from ..gates import Gates
from ..room import Room
from .limits import Limits
from .routes import Route

_WAITED_S = 1.0  # a client that has not sent a request for so long makes room for another


@dataclass(frozen=True)
class Site:
    """One port: what it passes on, to which Unix socket, and the address it listens on."""

    routes: tuple[Route, ...]
    upstream: str
    host: str = "127.0.0.1"


class Held(Protocol):
    """A connection as the front sees it."""

    waits_since: float | None  # for a request of the client's; None: one is being answered

    def expire(self, now: float) -> None: ...
    def give_way(self) -> None: ...
    def abort(self) -> None: ...


@dataclass
class Shared:
    """Of one event loop.

    Attributes:
        fair_share: whether the server behind shares itself among its clients, and is to be told whose a request is.
        held_bytes: of bodies that are being read or answered.
    """

    limits: Limits
    keys: Keys
    log: AccessLog
    allowed_origins: Collection[str] = ()
    fair_share: bool = False
    gates: Gates = field(default_factory=lambda: Gates(room=Room.of_environment()))
    connections: set[Held] = field(default_factory=set)
    held_bytes: int = 0
    closing: bool = False

    def admit(self, connection: Held) -> bool:
        """Whether there is room for one more; who waits without asking anything makes room."""
        if len(self.connections) >= self.limits.connections:
            waiting = [one for one in self.connections if one.waits_since is not None]
            longest = min(waiting, key=lambda one: one.waits_since or 0.0, default=None)
            if longest is None or time.monotonic() - (longest.waits_since or 0.0) < _WAITED_S:
                return False
            longest.give_way()
            self.connections.discard(longest)
        self.connections.add(connection)
        return True

    async def watch(self, pause_s: float = 0.5) -> None:
        """End what takes longer than it may; goes on for ever."""
        while True:
            await asyncio.sleep(pause_s)
            now = time.monotonic()
            for connection in tuple(self.connections):
                connection.expire(now)

    def ended(self, access: Access, began: float) -> None:
        """A request has ended: its line in the log."""
        access.seconds = time.monotonic() - began
        self.log.write(access)
