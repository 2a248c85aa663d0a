"""Requests that two parsers might end at two places: refused, and nothing goes on. Run: pytest tests/gateway/kserve"""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.kserve import front, post, status
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.reading import Reader
from triune_gateway.kserve.refusal import Refusal

HEAD = b"POST /v2/models/triune/generate HTTP/1.1\r\nHost: localhost\r\n"
HIDDEN = b"POST /v2/repository/models/x/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
SMUGGLING = {
    "both lengths": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "both, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 90\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 95\r\n\r\n{}" + HIDDEN,
    "two equal lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "a header that goes on": HEAD + b"X: a\r\n Content-Length: 90\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "a length that goes on": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a space before the colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "another coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding before it": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding in 1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a sign": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "less than none": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "hexadecimal": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "lines that end in LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    "one line that ends in LF": HEAD + b"X: a\nContent-Length: 90\r\nContent-Length: 2\r\n\r\n{}",
    "CR in a line": HEAD + b"X: a\rContent-Length: 90\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a line": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "two hosts": HEAD + b"Host: elsewhere\r\nContent-Length: 2\r\n\r\n{}",
    "no host": b"POST /v2/models/triune/generate HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk's size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2**64": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "no version": b"GET /v2\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a whole URL": b"GET http://elsewhere/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "dots": b"GET /v2/models/../repository/index HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "escapes": b"GET /v2/%6dodels/triune HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_may_be_read_in_two_ways_is_refused_and_ends_the_connection(name: str) -> None:
    async def run() -> None:
        async with front(body_s=0.2) as running:
            answer = await running.exchange(SMUGGLING[name])
            assert 400 <= status(answer) < 600, answer
            assert running.seen == []
            assert answer.count(b"x-request-id: ") == 1, "what came after it was taken for a request"

    asyncio.run(run())


@pytest.mark.parametrize(
    "line",
    [
        "POST /v2/repository/models/triune/load", "POST /v2/repository/models/triune/unload",
        "GET /v2/systemsharedmemory/status", "POST /v2/systemsharedmemory/region/x/register",
        "POST /v2/systemsharedmemory/unregister", "POST /v2/cudasharedmemory/region/x/register",
        "GET /v2/logging", "POST /v2/logging", "GET /v2/trace/setting", "POST /v2/models/triune/trace/setting",
    ],
)  # fmt: skip
def test_what_controls_triton_is_closed(line: str) -> None:
    async def run() -> None:
        async with front() as running:
            sent = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            assert status(await running.exchange(sent.encode())) == 403
            assert running.seen == []

    asyncio.run(run())


def test_only_what_the_server_behind_reads_is_passed_on() -> None:
    async def run() -> bytes:
        async with front() as running:
            sent = post(b"{}", b"X-Other: a", b"Authorization: Bearer k", b"Traceparent: 00-1-2-01", b"Triune-Control: guess")
            await running.exchange(sent)
            return running.seen[0][0]

    assert asyncio.run(run()) == (
        b"POST /v2/models/triune/generate HTTP/1.1\r\nHost: triton\r\ntraceparent: 00-1-2-01\r\nContent-Length: 2\r\n\r\n"
    )


def read(pieces: list[bytes]) -> tuple[object, ...]:
    """What a reader makes of a connection's bytes, wherever the network cuts them."""
    reader = Reader(Limits(), lambda request: None, lambda: None)
    try:
        for piece in pieces:
            if (found := reader.feed(piece)) is not None:
                request = found[0]
                return request.method, request.path, request.body, request.headers
    except Refusal as refusal:
        return (refusal.status,)
    return ()


@given(st.sampled_from([*SMUGGLING.values(), post(b'{"a":1}'), post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked")]),
       st.lists(st.integers(1, 200), max_size=8))  # fmt: skip
@settings(max_examples=300)
def test_a_request_means_the_same_wherever_it_is_cut(sent: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted({cut for cut in cuts if cut < len(sent)}), len(sent)]
    pieces = [sent[start:end] for start, end in itertools.pairwise(edges)]
    whole, cut = read([sent]), read(pieces)
    assert cut == whole or (len(cut) == len(whole) == 1), "refused either way, if perhaps for another reason"


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_a_request_a_refusal_or_a_beginning(sent: bytes) -> None:
    found = read([sent])
    assert found in ((), *((status,) for status in range(400, 506))) or len(found) == 4
