"""A proxy that spoils some of the streams that pass: it drops, repeats, swaps, corrupts, delays, cuts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator

from triune_load.transports.http_parser import ResponseParser
from triune_load.transports.sse import SseSplitter

Events = list[bytes]
HALF = b"\\ud83d"


class FaultProxy:
    """Passes requests on to one server; every stream may get one fault.

    Args:
        upstream: port of the server.
        fault: a key of `FAULTS`, or `cut`, `lose`, `delay`; `close` ends the connection after every answer, which is no fault.
        share: of streams that get it.
        skip: requests before the first that may get it.
    """

    def __init__(self, upstream: int, fault: str, *, share: float, skip: int, seed: int = 0) -> None:
        self._upstream, self._fault, self._share, self._skip = upstream, fault, share, skip
        self._rng = random.Random(seed)
        self.applied = 0

    async def listen(self) -> tuple[asyncio.Server, int]:
        """Starts; the port is given back."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return server, int(server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._pass(reader, writer):
                pass
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its response; whether the connection stays."""
        request = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"content-length")]
        request += await reader.readexactly(int(lengths[0])) if lengths else b""
        parser, body = await self._ask(request)
        if b'"stream": true' not in request or self._skipped() or self._rng.random() >= self._share:
            writer.write(_head(parser) + _chunks(body))
            return self._fault != "close"
        self.applied += 1
        if self._fault == "lose":
            return False
        events = SseSplitter().feed(body)
        if self._fault in ("cut", "delay"):
            middle = len(events) // 2
            writer.write(_head(parser) + b"".join(_chunk(_framed(event)) for event in events[:middle]))
            if self._fault == "cut":
                await writer.drain()
                return False
            await asyncio.sleep(0.6)
            writer.write(b"".join(_chunk(_framed(event)) for event in events[middle:]) + b"0\r\n\r\n")
            return True
        writer.write(_head(parser) + _chunks(b"".join(map(_framed, FAULTS[self._fault](events, self._rng)))))
        return True

    def _skipped(self) -> bool:
        self._skip -= 1
        return self._skip >= 0

    async def _ask(self, request: bytes) -> tuple[ResponseParser, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(request)
        parser, body = ResponseParser(), b""
        while not parser.complete:
            body += parser.feed(await reader.read(65536))
        writer.close()
        return parser, body


def _head(parser: ResponseParser) -> bytes:
    return f"HTTP/1.1 {parser.status} OK\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def _framed(event: bytes) -> bytes:
    return b"data: " + event + b"\n\n"


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def _chunks(body: bytes) -> bytes:
    return _chunk(body) + b"0\r\n\r\n"


def _texts(events: Events) -> list[int]:
    """Places of the events that bring text, but the last two: an answer goes on after them."""
    marks = (b'"content": " ', b'"text": " ', b'"text_output": " ', b'"delta": " ')
    return [n for n, event in enumerate(events) if any(mark in event for mark in marks) and b'"output"' not in event][:-2]


def _without(place: int, events: Events) -> Events:
    return events[:place] + events[place + 1 :]


def _drop(events: Events, rng: random.Random) -> Events:
    return _without(rng.choice(_texts(events)), events)


def _drop_last(events: Events, rng: random.Random) -> Events:
    return events[:-1]


def _truncate(events: Events, rng: random.Random) -> Events:
    return events[: rng.choice(_texts(events)[1:])]


def _repeat(events: Events, rng: random.Random) -> Events:
    place = rng.choice(_texts(events))
    return [*events[: place + 1], *events[place:]]


def _swap(events: Events, rng: random.Random) -> Events:
    place = rng.choice(_texts(events))
    return [*events[:place], events[place + 1], events[place], *events[place + 2 :]]


def _edited(edit: Callable[[bytes], bytes]) -> Callable[[Events, random.Random], Events]:
    def spoil(events: Events, rng: random.Random) -> Events:
        place = rng.choice(_texts(events))
        return [*events[:place], edit(events[place]), *events[place + 1 :]]

    return spoil


def _letter(event: bytes) -> bytes:
    head, mark, rest = event.partition(b'": " ')
    return head + mark + b"X" + rest


def _after_letter(event: bytes, what: bytes) -> bytes:
    head, mark, rest = event.partition(b'": " ')
    return head + mark + what + rest


def _count(events: Events, rng: random.Random) -> Events:
    """A count of tokens that is not true."""
    names = (b'"completion_tokens": ', b'"output_tokens": ', b'"num_output_tokens": ')
    for place in reversed(range(len(events))):
        for name in names:
            if name in events[place]:
                return [*events[:place], events[place].replace(name, name + b"1", 1), *events[place + 1 :]]
    return events


def _foreign(events: Events, rng: random.Random) -> Events:
    """An event of another answer: it has another id."""
    places: Iterator[int] = (n for n in reversed(range(len(events))) if b'"id": "' in events[n])
    place = next(places)
    return [*events[:place], events[place].replace(b'"id": "', b'"id": "other-', 1), *events[place + 1 :]]


FAULTS: dict[str, Callable[[Events, random.Random], Events]] = {
    "drop": _drop,
    "drop the last": _drop_last,
    "truncate": _truncate,
    "repeat": _repeat,
    "swap": _swap,
    "corrupt a letter": _edited(_letter),
    "corrupt UTF-8": _edited(lambda event: _after_letter(event, b"\xff")),
    "cut a character": _edited(lambda event: _after_letter(event, HALF)),
    "corrupt JSON": _edited(lambda event: event[:-1]),
    "corrupt a count": _count,
    "another's event": _foreign,
}
