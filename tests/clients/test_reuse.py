"""Run: pytest tests/clients/test_reuse.py - connections are used again, by derived clients too."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from triune_client import AsyncClient, Client

ANSWER = {"text_output": "ok", "finish_reason": "stop", "num_output_tokens": 1}


class Counting(ThreadingHTTPServer):
    """Answers everything, and counts connections."""

    daemon_threads = True
    connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        event = b"data: " + json.dumps(ANSWER).encode() + b"\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(event)))
        self.end_headers()
        self.wfile.write(event)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def counting() -> Iterator[Counting]:
    server = Counting(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_one_connection_carries_call_after_call(counting: Counting) -> None:
    with Client(f"http://127.0.0.1:{counting.server_port}") as client:
        for _ in range(5):
            assert client.generate("hi").text == "ok"
        assert client.with_options(temperature=0.0).chat("hi").text == "ok"
    assert counting.connections == 1


def test_one_connection_carries_call_after_call_asynchronously(counting: Counting) -> None:
    async def calls() -> None:
        async with AsyncClient(f"http://127.0.0.1:{counting.server_port}") as client:
            for _ in range(5):
                async with client.stream("hi") as stream:
                    assert [chunk.text async for chunk in stream] == ["ok"]
            assert (await client.with_options(seed=1).generate("hi")).text == "ok"

    asyncio.run(calls())
    assert counting.connections == 1
