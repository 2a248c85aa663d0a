"""Connections that say nothing, or read nothing, are closed; others are not. Run: pytest tests/gateway/test_connections.py"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress

import httpx
import pytest

from fakes.ensemble import CHAT, Ensemble, answer, piece
from fakes.gateways import PATIENCE_S, running

BODY = b'{"model": "triune", "prompt": "Once"}'
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(BODY)
)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def until_closed(connection: socket.socket) -> bytes:
    """All that comes before the connection is closed."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@pytest.mark.parametrize("said", [b"", b"POST /v1/comp", HEAD[:-2]], ids=["nothing", "half a line", "half a head"])
def test_who_does_not_say_what_it_asks_is_left(ensemble: Ensemble, said: bytes) -> None:
    with running(ensemble, head_timeout_s=0.3) as port, connect(port) as connection:
        connection.sendall(said)
        assert until_closed(connection) == b""


def test_a_body_in_more_chunks_than_are_taken_is_refused_before_it_has_come(ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: answer("Hel", "lo")
    head = HEAD.partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
    with running(ensemble) as port:
        with connect(port) as connection:
            connection.sendall(head + b"1\r\n \r\n" * 10_001)
            found = until_closed(connection)
        assert found.startswith(b"HTTP/1.1 413 ") and b"comes in more than 10,000 chunks; send it in fewer" in found
        with connect(port) as connection:
            connection.sendall(head + b"1\r\n \r\n" * 9_999 + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_http_is_refused_and_closed_also_after_an_answer(ensemble: Ensemble) -> None:
    refused = HEAD.partition(b"content-length")[0] + b"content-encoding: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with running(ensemble) as port, connect(port) as connection:
        connection.sendall(refused)
        assert connection.recv(100).startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"no length\r\n")
        with suppress(ConnectionError):
            until_closed(connection)


def test_a_head_that_drips_is_left_as_well(ensemble: Ensemble) -> None:
    def drip(connection: socket.socket) -> None:
        for letter in HEAD * 20:
            connection.sendall(bytes([letter]))
            time.sleep(0.02)

    with running(ensemble, head_timeout_s=0.5) as port, connect(port) as connection, pytest.raises(OSError):
        drip(connection)


def test_a_second_request_that_drips_is_left(ensemble: Ensemble) -> None:
    with running(ensemble, head_timeout_s=0.5) as port, connect(port) as connection:
        connection.sendall(HEAD + BODY + HEAD[:20])
        assert until_closed(connection).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_refused(ensemble: Ensemble) -> None:
    with running(ensemble, body_timeout_s=0.3, head_timeout_s=0.3) as port, connect(port) as connection:
        connection.sendall(HEAD + BODY[:5])
        assert until_closed(connection).startswith(b"HTTP/1.1 408")
    assert not ensemble.requests


def test_who_waits_for_an_answer_is_not_left(ensemble: Ensemble) -> None:
    """However long it takes: the limits are for what the client does."""
    ensemble.reply = lambda request: [piece("a"), Slow(), *answer("b")]  # type: ignore[list-item]
    with running(ensemble, head_timeout_s=0.2, body_timeout_s=0.2, write_timeout_s=0.2) as port:
        response = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
        assert response.json()["choices"][0]["message"]["content"] == "ab"


class Slow(asyncio.Event):
    """A second in which nothing comes."""

    async def wait(self) -> bool:  # type: ignore[override]
        await asyncio.sleep(1.0)
        return True


def test_who_reads_nothing_is_left_and_its_answer_ended(ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: [*[piece("x" * 100_000)] * 400, asyncio.Event(), *answer("end")]
    with running(ensemble, write_timeout_s=0.5) as port, connect(port) as connection:
        body = BODY[:-1] + b', "stream": true}'
        connection.sendall(HEAD.replace(b"%d" % len(BODY), b"%d" % len(body)) + body)
        end = time.monotonic() + PATIENCE_S
        while 'status="499"} 1.0' not in (told := httpx.get(f"http://127.0.0.1:{port}/metrics").text):
            assert time.monotonic() < end, "the answer goes on for nobody"
            time.sleep(0.05)
        assert 'triune_openai_open_answers{stream="true"} 0.0' in told


def test_connections_over_the_limit_are_told_to_come_again(ensemble: Ensemble) -> None:
    with running(ensemble, max_connections=2) as port, connect(port) as one, connect(port) as other:
        with connect(port) as third:
            told = until_closed(third)
        assert told.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in told and b"too many connections" in told
        one.close()
        other.sendall(HEAD + BODY)
        assert other.recv(12) == b"HTTP/1.1 200"
        end = time.monotonic() + PATIENCE_S
        while httpx.get(f"http://127.0.0.1:{port}/health/live").status_code != 200:
            assert time.monotonic() < end, "the place that is free again is not used"
