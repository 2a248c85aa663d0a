"""Clients that leave, read slowly, write slowly, or say nothing at all."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import httpx

from triune_client import TriuneError
from triune_client.grpc import GrpcClient

from ..scene import Scene

_STORM, _IDLE, _SLOW = 48, 64, 6
_LONG = {"text_input": "What is 7 + 8?", "max_tokens": 400, "ignore_eos": True, "temperature": 0.0, "stream": True}
_LONG_CHAT = {
    "model": "triune", "messages": [{"role": "user", "content": "What is 7 + 8?"}], "max_tokens": 400, "ignore_eos": True,
    "stream": True,
}  # fmt: skip


def disconnect_storm_http(scene: Scene) -> None:
    """Streams over HTTP and the OpenAI-compatible API whose clients leave after a few events."""
    where = scene.server.where
    asked = [(f"{where.http}/v2/models/triune/generate_stream", _LONG), (f"{where.openai}/v1/chat/completions", _LONG_CHAT)]
    leaves = [(*asked[n % 2], scene.chance.randint(0, 5), scene.chance.uniform(0, 1.5)) for n in range(_STORM)]

    async def one(client: httpx.AsyncClient, url: str, body: dict[str, object], events: int, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(20), client.stream("POST", url, json=body) as reply:
                async for line in reply.aiter_lines():
                    events -= line.startswith("data:")
                    if events <= 0:
                        return

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=_STORM, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=20, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(one(client, *leave) for leave in leaves))

    asyncio.run(all_of_them())


def disconnect_storm_grpc(scene: Scene) -> None:
    """Streams over gRPC whose clients leave after a few responses, or at once."""
    leaves = [scene.chance.randint(0, 5) for _ in range(_STORM // 2)]

    def one(responses: int) -> None:
        with (
            suppress(TriuneError),
            GrpcClient(scene.server.where.grpc, timeout_s=20, max_retries=0) as client,
            client.stream("What is 7 + 8?", max_tokens=400, ignore_eos=True) as chunks,
        ):
            for _ in range(responses):
                next(chunks, None)

    _together([partial(one, responses) for responses in leaves])


def silent_connections(scene: Scene) -> None:
    """Many connections that say nothing, or half a request, for a while."""
    parts = [b"", b"POST ", b"POST /v2/models/triune/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"]
    for n in range(_IDLE):
        connection = _connect(scene, scene.server.ports[("http", "openai", "grpc")[n % 3]])
        with suppress(OSError):
            connection.sendall(scene.chance.choice(parts))
    scene.wait(4.0)


def slow_readers_http(scene: Scene) -> None:
    """Streams whose clients read a few bytes a second."""
    where = scene.server.where
    asked = [(f"{where.http}/v2/models/triune/generate_stream", _LONG), (f"{where.openai}/v1/chat/completions", _LONG_CHAT)]
    connections = []
    for n in range(_SLOW):
        url, body = asked[n % 2]
        connection = _connect(scene, urlsplit(url).port or 0, receive_bytes=2048)
        text = json.dumps(body).encode()
        head = f"POST {urlsplit(url).path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with suppress(OSError):
            connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        connections.append(connection)
    for _ in range(6):
        scene.wait(1.0)
        for connection in connections:
            connection.setblocking(False)
            with suppress(OSError):
                connection.recv(16)


def slow_readers_grpc(scene: Scene) -> None:
    """Streams over gRPC whose clients take a response a second."""

    def one() -> None:
        with (
            suppress(TriuneError),
            GrpcClient(scene.server.where.grpc, timeout_s=20, max_retries=0) as client,
            client.stream("What is 7 + 8?", max_tokens=400, ignore_eos=True) as chunks,
        ):
            for _ in range(6):
                next(chunks, None)
                scene.wait(1.0)

    _together([one] * _SLOW)


def slow_writers(scene: Scene) -> None:
    """Requests whose bodies come a byte at a time."""
    head = b"POST /v2/models/triune/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n"
    connections = [_connect(scene, scene.server.ports[("http", "openai")[n % 2]]) for n in range(_IDLE // 2)]
    for connection in connections:
        with suppress(OSError):
            connection.sendall(head)
    for _ in range(8):
        scene.wait(0.5)
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b" ")


def _connect(scene: Scene, port: int, receive_bytes: int | None = None) -> socket.socket:
    """A connection that is closed when the fault is over."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(5)
    scene.undo.callback(connection.close)
    with suppress(OSError):
        connection.connect(("127.0.0.1", port))
    return connection


def _together(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
