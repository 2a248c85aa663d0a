"""Answers go through as they are, as they come, to who still waits for them. Run: pytest tests/gateway/kserve"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kserve import OK, front, post, say_ok, saying, status
from triune_gateway.kserve.framing import BadAnswer, Framing
from triune_gateway.kserve.refusal import Refusal
from triune_gateway.kserve.upstream import Upstream

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'data: {"text_output":"%d"}\n\n' % number for number in range(3)]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Waiting:
    """A client whose connection has no memory for one piece."""

    def __init__(self, lost: int) -> None:
        self._lost = lost
        self.got: list[bytes] = []
        self.cut = self.ended = False

    def head(self, status: int, head: bytes, body: bytes) -> None:
        self.body(body)

    def body(self, data: bytes) -> None:
        if len(self.got) == self._lost:
            self._lost = -1
            raise MemoryError
        self.got.append(data)

    def end(self, *, keep: bool) -> None:
        self.ended = True

    def abort(self) -> None:
        self.cut = True

    def refuse(self, refusal: Refusal) -> None:
        raise AssertionError(refusal)

    def unavailable(self, message: str) -> None:
        raise AssertionError(message)


def test_an_event_arrives_before_the_next_one_is_made() -> None:
    go_on = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for event in EVENTS:
            go_on.clear()
            writer.write(chunk(event))
            await go_on.wait()
        writer.write(b"0\r\n\r\n")

    async def run() -> None:
        async with front(stream) as running:
            reader, writer = await running.open()
            writer.write(post())
            for event in EVENTS:
                await asyncio.wait_for(reader.readuntil(chunk(event)), 20)
                go_on.set()
            assert (await reader.read()).endswith(b"0\r\n\r\n")
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("lost", range(3))
def test_an_answer_of_which_a_piece_was_lost_is_cut(lost: int) -> None:
    """asyncio closes a connection whose protocol fails; where there is no memory left for that, it goes on reading."""
    client = Waiting(lost)
    upstream = Upstream(client, b"")
    for piece in (STREAM + chunk(EVENTS[0]), chunk(EVENTS[1]), chunk(EVENTS[2]), b"0\r\n\r\n"):
        with suppress(MemoryError):
            upstream.data_received(piece)
    assert client.got == [chunk(event) for event in EVENTS[:lost]] and client.cut and not client.ended


def test_an_answer_is_byte_equal_but_for_the_request_s_id() -> None:
    async def run() -> bytes:
        async with front(saying(STREAM + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n")) as running:
            return await running.exchange(post(b"{}", b"X-Request-Id: r1"))

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert body == b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"
    assert head + b"\r\n\r\n" == STREAM[:-2] + b"x-request-id: r1\r\nConnection: close\r\n\r\n"


def test_who_leaves_ends_the_request_behind() -> None:
    left = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(EVENTS[0]))
        assert await reader.read() == b""
        left.set()

    async def run() -> None:
        async with front(wait) as running:
            reader, writer = await running.open()
            writer.write(post())
            await reader.readuntil(chunk(EVENTS[0]))
            writer.close()
            await asyncio.wait_for(left.wait(), 20)
            while running.shared.connections:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_connection_serves_one_request_after_the_other_in_order() -> None:
    number = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        await asyncio.sleep(0.02 / number)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    async def run() -> None:
        async with front(count) as running:
            answer = await running.exchange(post(close=False) + post(b'{"a":1}', close=False) + post())
            assert [part[:1] for part in answer.split(b"\r\n\r\n")[1:]] == [b"1", b"2", b"3"]
            assert [body for _, body in running.seen] == [b"{}", b'{"a":1}', b"{}"]

    asyncio.run(run())


OVERLOADED = "UNAVAILABLE [overloaded]: the queue is full; hint: try again later"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (OVERLOADED, 503), ("UNAVAILABLE [stopping]: the server is stopping", 503), ("UNAVAILABLE: the queue is full", 503),
        (f"in ensemble 'triune', {OVERLOADED}", 503), ("INVALID_ARGUMENT [invalid_value max_tokens]: too much", 400),
        ("INVALID_ARGUMENT [invalid_value stop]: 'UNAVAILABLE' is none", 400), ("failed to parse the request JSON buffer", 400),
    ],
)  # fmt: skip
def test_want_of_room_is_503_and_every_other_error_as_triton_has_it(said: str, found: int) -> None:
    body = json.dumps({"error": said}).encode()
    whole = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def run() -> bytes:
        async with front(saying(whole)) as running:
            return await running.exchange(post())

    answer = asyncio.run(run())
    assert status(answer) == found
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": said}
    assert (b"Retry-After: 1\r\n" in answer) == (found == 503)


def test_nobody_behind_is_503_and_the_connection_lives_on() -> None:
    async def run() -> None:
        async with front(there=False) as running:
            answer = await running.exchange(post(close=False) + post())
            assert answer.count(b"HTTP/1.1 503 Service Unavailable") == answer.count(b"Retry-After: 1") == 2
            assert b"UNAVAILABLE [not_ready]: " in answer

    asyncio.run(run())


@pytest.mark.parametrize(("said", "found"), [(b"", 503), (b"HTTP/1.1 20", 503), (b"no HTTP\r\n\r\n", 503)])
def test_a_server_behind_that_ends_before_it_answers_is_503(said: bytes, found: int) -> None:
    async def run() -> int:
        async with front(saying(said)) as running:
            return status(await running.exchange(post()))

    assert asyncio.run(run()) == found


@pytest.mark.parametrize("sent", [STREAM + chunk(EVENTS[0]), OK[:-1]])
def test_an_answer_that_breaks_off_ends_the_connection(sent: bytes) -> None:
    async def run() -> None:
        async with front(saying(sent)) as running:
            answer = await running.exchange(post(close=False))
            assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(sent[-5:]), "nothing that looks like an end"
            assert not running.shared.connections

    asyncio.run(run())


def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    async def run() -> None:
        async with front() as running:
            reader, writer = await running.open()
            head, _, body = post(b'{"a":1}', b"Expect: 100-continue").partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert status(await reader.read()) == 200
            writer.close()

    asyncio.run(run())


def test_a_client_of_1_0_gets_what_it_can_read() -> None:
    async def run() -> None:
        async with front(saying(b"HTTP/1.0 200 OK\r\n\r\nto the end")) as running:
            answer = await running.exchange(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            assert answer.endswith(b"to the end") and running.seen[0][0].startswith(b"GET /v2/health/live HTTP/1.0\r\n")

    asyncio.run(run())


def test_a_query_is_left_out_and_a_method_that_is_not_there_is_405() -> None:
    async def run() -> None:
        async with front(say_ok) as running:
            sent = b"GET /v2/health/ready?at=5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            answer = await running.exchange(sent + sent.replace(b"GET", b"DELETE"))
            assert (b"200 OK" in answer, b"405 Method Not Allowed" in answer) == (True, True)
            assert running.seen[0][0].startswith(b"GET /v2/health/ready HTTP/1.1\r\n")

    asyncio.run(run())


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_the_end_of_an_answer_is_found_wherever_it_is_cut(chunks: list[bytes], sizes: list[int]) -> None:
    whole = STREAM + b"".join(map(chunk, chunks)) + b"0\r\n\r\n"
    framing, at = Framing(), 0
    for size in sizes * len(whole):
        assert framing.done == (at >= len(whole))
        piece, at = whole[at : at + size], at + size
        if not piece:
            break
        rest = framing.take_head(piece) if not framing.status else piece
        framing.take_body(rest or b"")
    with pytest.raises(BadAnswer):
        framing.take_body(b"more")
