"""The front before a stand-in for Triton's HTTP: a Unix socket that keeps what it is sent and answers as a test says."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from triune_gateway.access_log import AccessLog
from triune_gateway.bearer import Keys
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.listening import accepting
from triune_gateway.kserve.routes import API
from triune_gateway.kserve.shared import Shared, Site
from triune_gateway.tls import Tls

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
PATH = "/v2/models/triune/generate"


async def say_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def saying(answer: bytes) -> Reply:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return say


@dataclass
class Front:
    """A running one."""

    port: int
    shared: Shared
    trusted: ssl.SSLContext | None = None  # what `open` speaks; None: plainly
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)  # head and body of each request that came through

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trusted)

    async def exchange(self, sent: bytes) -> bytes:
        """All that comes back, to the end of the connection."""
        reader, writer = await self.open()
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


@asynccontextmanager
async def front(reply: Reply = say_ok, *, keys: tuple[str, ...] = (), log: Path | None = None, host: str = "127.0.0.1",
                there: bool = True, tls: Tls | None = None, **bounds: float) -> AsyncIterator[Front]:  # fmt: skip
    """A front with other bounds than usual before one that replies so, or before nobody."""
    limits = dataclasses.replace(Limits(), **bounds)
    shared = Shared(limits, Keys(keys), AccessLog(str(log) if log else None, "kserve"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            running.seen.append((head, body))
            await reply(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/http"
        behind = await asyncio.start_unix_server(serve, socket if there else f"{folder}/elsewhere")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(accepting(shared, Site(API, socket, host), tls), "127.0.0.1", 0)
        watching = loop.create_task(shared.watch(0.02))
        running = Front(server.sockets[0].getsockname()[1], shared)
        try:
            yield running
        finally:
            watching.cancel()
            server.close()
            behind.close()
            for connection in tuple(shared.connections):
                connection.abort()
            await asyncio.sleep(0)


def post(body: bytes = b"{}", *headers: bytes, path: str = PATH, close: bool = True) -> bytes:
    """A good request, with headers besides."""
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: localhost", *headers]
    lines += [b"Connection: close"] if close else []
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def status(answer: bytes) -> int:
    """Of the first answer in what came back; 0: none came."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
