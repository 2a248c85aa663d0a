"""Listens on the front's ports until told to stop, and lets answers under way end."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ..beating import Beats
from ..tls import Handshake, Tls
from .connection import Connection
from .shared import Shared, Site

_FILES = 65_536  # descriptors that are asked for: two for each request
_LOOK_S = 0.05


@dataclass(frozen=True)
class Listener:
    """A port, and what it serves."""

    port: int
    site: Site


class Grpc(Protocol):
    """A `grpc.GrpcFront`."""

    async def start(self, host: str, port: int) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


@dataclass(frozen=True)
class GrpcListener:
    """A port of gRPC, and what serves it."""

    host: str
    port: int
    front: Grpc


async def serve(
    shared: Shared, listeners: Sequence[Listener], drain_s: float, grpc: Callable[[], GrpcListener] | None = None,
    tls: Tls | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT.

    Args:
        drain_s: seconds that answers under way get then.
        grpc: makes what listens for gRPC, too.
        tls: what all ports speak; None: plainly.

    Raises:
        OSError: a port cannot be used.
    """
    _raise_file_limit()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers = [
        await loop.create_server(accepting(shared, one.site, tls), one.site.host, one.port, backlog=1024) for one in listeners
    ]
    over_grpc = grpc() if grpc is not None else None
    if over_grpc is not None:
        await over_grpc.front.start(over_grpc.host, over_grpc.port)
    watching = [loop.create_task(one) for one in (shared.watch(), Beats().go_on(), *([tls.watch()] if tls is not None else []))]
    await stop.wait()
    shared.closing = True
    for server in servers:
        server.close()
    end = loop.time() + drain_s
    while loop.time() < end and any(one.waits_since is None for one in shared.connections):
        await asyncio.sleep(_LOOK_S)
    for one in watching:
        one.cancel()
    if over_grpc is not None:
        await over_grpc.front.stop(max(0.0, end - loop.time()))
    for connection in tuple(shared.connections):
        connection.abort()
    await asyncio.sleep(0)


def accepting(shared: Shared, site: Site, tls: Tls | None) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of a new connection."""
    if tls is None:
        return partial(Connection, shared, site)
    make = partial(Connection, shared, site)
    return lambda: Handshake(tls, shared.limits.head_s, make, shared.connections, shared.admit)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
