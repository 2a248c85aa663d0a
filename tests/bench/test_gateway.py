"""The lean client of the API counts what comes, and gives up on an error. Run: pytest tests/bench/test_gateway.py"""

from __future__ import annotations

import asyncio
import json

import pytest
from bench.gateway import over_http
from bench.timing import Stream


def answered_with(answer: bytes) -> Stream:
    """The stream of a server that answers so, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def ask() -> Stream:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await over_http(server.sockets[0].getsockname()[1])("Once", 3)

    return asyncio.run(ask())


def event(tokens: int) -> bytes:
    return b"data: " + json.dumps({"usage": {"completion_tokens": tokens}}).encode() + b"\n\n"


def test_tokens_are_counted_event_by_event_and_events_without_one_are_no_arrivals() -> None:
    stream = answered_with(b"HTTP/1.1 200 OK\r\n\r\n" + event(1) + event(3) + event(3) + b"data: [DONE]\n\n")
    assert [count for _, count in stream.arrivals] == [1, 2]
    assert stream.tokens == 3
    assert all(at >= stream.sent for at, _ in stream.arrivals)


def test_an_error_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="503"):
        answered_with(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
