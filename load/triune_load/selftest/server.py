"""A server that pretends: every protocol over HTTP, tokens at a fixed pace, and a record of what it really did.

Run as `python -m triune_load.selftest.server PORT FIRST_S GAP_S`. `GET /truth` has when each answer was asked for, begun and
ended; `GET /metrics` how many are under way.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from .shapes import Script, script, understand, whole

Truth = list[tuple[float, float, float, int]]  # asked, first token, last token, tokens


class FakeServer:
    """The pretended model and its record.

    Args:
        first_s: from a request to its first token.
        gap_s: from a token to the next; 0: all at once.
    """

    def __init__(self, first_s: float, gap_s: float) -> None:
        self.first_s, self.gap_s = first_s, gap_s
        self.truth: Truth = []
        self.running = 0
        self.asked = 0
        self.generated = 0

    async def listen(self, port: int = 0) -> tuple[asyncio.Server, int]:
        """Starts; the port is given back."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=1024)
        return server, int(server.sockets[0].getsockname()[1])


class _Connection(asyncio.Protocol):
    """Requests of one connection, one after the other."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._answering: _Answering | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering is not None:
            self._answering.stop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._answer(first.split(" ")[1], rest[:length])

    def _answer(self, path: str, body: bytes) -> None:
        server, transport = self._server, self._transport
        assert transport is not None
        if path == "/truth":
            self._reply(json.dumps(server.truth))
        elif path == "/metrics":
            lines = {
                "vllm:num_requests_running": server.running, "vllm:num_requests_waiting": 0,
                "vllm:generation_tokens_total": server.generated,
            }  # fmt: skip
            self._reply("".join(f"{name} {value}\n" for name, value in lines.items()))
        elif path == "/v1/models":
            self._reply('{"data": [{"id": "fake"}]}')
        else:
            server.asked += 1
            asked = understand(path, json.loads(body or b"{}"), server.asked)
            if asked is None:
                self._reply('{"error": {"message": "no such path"}}', "404 Not Found")
            else:
                self._answering = _Answering(server, transport, script(asked) if asked.stream else whole(asked), asked.tokens)

    def _reply(self, text: str, status: str = "200 OK") -> None:
        assert self._transport is not None
        self._transport.write(_head(status) + f"Content-Length: {len(text.encode())}\r\n\r\n{text}".encode())


def _head(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n".encode()


class _Answering:
    """One answer on its way. Each token is due at a time of its own, so lateness does not add up."""

    def __init__(self, server: FakeServer, transport: asyncio.Transport, what: Script | str, tokens: int) -> None:
        self._server, self._transport, self._what, self._tokens = server, transport, what, tokens
        self._loop = asyncio.get_running_loop()
        self._asked = self._loop.time()
        self._first = 0.0
        self._next = 0
        server.running += 1
        self._due = self._asked + server.first_s
        if isinstance(what, str):
            self._due += server.gap_s * tokens
        self._timer: asyncio.Handle = self._loop.call_at(self._due, self._go)

    def stop(self) -> None:
        """The client left."""
        if self._timer is not None and not self._timer.cancelled() and self._next >= 0:
            self._timer.cancel()
            self._end()

    def _go(self) -> None:
        if isinstance(self._what, str):
            body = self._what.encode()
            self._transport.write(_head("200 OK") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self._told(self._loop.time(), self._loop.time())
            return
        out, chunks, now = [], self._what.chunks, self._loop.time()
        if not self._next:
            out = [_head("200 OK") + b"Transfer-Encoding: chunked\r\n\r\n", *map(_chunk, self._what.before)]
            self._first = now
        upto = self._next + 1 if self._server.gap_s else len(chunks)
        out += map(_chunk, chunks[self._next : upto])
        self._next = upto
        if upto >= len(chunks):
            out += [*map(_chunk, self._what.after), b"0\r\n\r\n"]
            self._transport.write(b"".join(out))
            self._told(self._first, now)
            return
        self._transport.write(b"".join(out))
        self._due += self._server.gap_s
        self._timer = self._loop.call_at(self._due, self._go)

    def _told(self, first: float, last: float) -> None:
        self._server.truth.append((self._asked, first, last, self._tokens))
        self._end()

    def _end(self) -> None:
        self._next = -1
        self._server.running -= 1
        self._server.generated += self._tokens


def _chunk(event: str) -> bytes:
    body = f"data: {event}\n\n".encode()
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


async def _serve(port: int, first_s: float, gap_s: float) -> None:
    server, bound = await FakeServer(first_s, gap_s).listen(port)
    print(bound, flush=True)
    await server.serve_forever()


def main(arguments: list[str]) -> Any:
    """Serves until it is killed; prints its port."""
    asyncio.run(_serve(int(arguments[0]), float(arguments[1]), float(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
