"""A front before a server that is full refuses by itself and soon asks again. Run: pytest tests/gateway/kserve/test_full.py"""

from __future__ import annotations

import asyncio
import json

import pytest

from fakes.kserve import OK, PATH, Front, front, post, status
from triune_gateway.kserve.bodies import ends_another, places

FULL = "UNAVAILABLE [overloaded]: 272 requests are here already, the limit is 16 being served and 256 waiting"


def error(said: str) -> bytes:
    body = json.dumps({"error": said}).encode()
    return b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Server:
    """Triton, which says what it is told to."""

    def __init__(self, says: bytes) -> None:
        self.says = says

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.says)


async def asked(running: Front, sent: bytes) -> tuple[int, bool]:
    """The status of its answer, and whether that came from the server behind."""
    before = len(running.seen)
    answer = await running.exchange(sent)
    if status(answer) == 503:
        assert b"\r\nRetry-After: 1\r\n" in answer and b"UNAVAILABLE" in answer
    return status(answer), len(running.seen) > before


def test_after_the_server_s_word_the_front_refuses_until_a_request_has_another() -> None:
    async def run() -> None:
        server = Server(error(FULL))
        async with front(server) as running:
            now = [0.0]
            running.shared.gates._clock = lambda: now[0]
            assert await asked(running, post()) == (503, True)
            for path in (PATH, f"{PATH}_stream", "/v2/models/triune/versions/1/generate"):
                assert await asked(running, post(path=path)) == (503, False)
            assert await asked(running, post(path="/v2/models/other/generate")) == (503, True), "it is another model"
            now[0] += 1.0
            server.says = OK
            assert [await asked(running, post()) for _ in range(3)] == [(200, True)] * 3

    asyncio.run(run())


def test_a_connection_lives_on_when_its_request_was_refused_here() -> None:
    async def run() -> None:
        async with front(Server(error(FULL))) as running:
            answer = await running.exchange(post(close=False) + post(close=False) + post())
            assert answer.count(b"HTTP/1.1 503 ") == answer.count(b"Retry-After: 1\r\n") == 3
            assert len(running.seen) == 1 and not running.shared.held_bytes

    asyncio.run(run())


ENDING = (b'{"id": "1", "cancel": true}', b'{"id": "1", "stop" :[true]}', b'{"inputs": [{"name": "stop", "datatype": "BOOL"}]}')


@pytest.mark.parametrize("body", ENDING)
def test_a_request_that_ends_another_goes_on_whatever_the_server_has_said(body: bytes) -> None:
    async def run() -> None:
        server = Server(error(FULL))
        async with front(server) as running:
            assert await asked(running, post()) == (503, True)
            server.says = OK
            assert await asked(running, post(body)) == (200, True)
            assert await asked(running, post()) == (503, False), "its answer says nothing of places"

    asyncio.run(run())


@pytest.mark.parametrize(
    "said", ["UNAVAILABLE [stopping]: no", "UNAVAILABLE: no", "UNAVAILABLE [overloaded response_format]: no"]
)
def test_what_is_not_for_want_of_places_closes_nothing(said: str) -> None:
    async def run() -> None:
        async with front(Server(error(said))) as running:
            assert [await asked(running, post()) for _ in range(2)] == [(503, True)] * 2

    asyncio.run(run())


def test_one_client_that_has_too_much_is_refused_and_no_other() -> None:
    async def run() -> None:
        server = Server(error("UNAVAILABLE [overloaded x-triune-client]: 192 requests of this client are waiting already"))
        async with front(server, keys=("g # greedy", "o # other")) as running:
            greedy, other = (post(b"{}", b"Authorization: Bearer %b" % key) for key in (b"g", b"o"))
            assert await asked(running, greedy) == (503, True)
            server.says = OK
            assert await asked(running, greedy) == (503, False)
            assert await asked(running, other) == (200, True)

    asyncio.run(run())


def test_a_server_that_is_not_there_any_more_is_not_full() -> None:
    async def run() -> None:
        server = Server(error(FULL))
        async with front(server) as running:
            now = [0.0]
            running.shared.gates._clock = lambda: now[0]
            await asked(running, post())
            now[0] += 1.0
            server.says = b""
            assert [await asked(running, post()) for _ in range(3)] == [(503, True)] * 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "ends", "count"),
    [
        (b'{"text_input": "a", "stop": ["x"]}', False, 1), (b'{"text_input": "stop", "max_tokens": 4}', False, 1),
        (b'{"text_input": "a", "cancel": false}', False, 1), (b'{"text_input": "a", "n": 3}', False, 2),
        (b'{"sampling_parameters": "{\\"n\\": 3}"}', False, 2), (b'{"inputs": [{"name": "best_of"}]}', False, 2),
        (b'{"text_input": ["a", "b"]}', False, 2), (b'{"inputs": [{"name": "messages", "shape": [12, 1]}]}', False, 2),
        (b'{"inputs": [{"name": "messages", "shape": [1, 1]}]}', False, 1),
        *((body, True, 1) for body in ENDING),
    ],
)  # fmt: skip
def test_what_a_body_is_looked_at_for(body: bytes, ends: bool, count: int) -> None:
    assert (ends_another(body), places(body)) == (ends, count)
