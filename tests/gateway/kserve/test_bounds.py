"""What the front takes, and no more: bytes, depths, chunks, headers, connections, time. Run: pytest tests/gateway/kserve"""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kserve import OK, Front, front, post, say_ok, status
from triune_gateway.kserve.bodies import check_body, check_json
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.refusal import Refusal

CHUNKED = b"Transfer-Encoding: chunked"


def asked(sent: bytes, **bounds: float) -> tuple[int, Front]:
    """Status of the answer to what is sent."""

    async def run() -> tuple[int, Front]:
        async with front(**bounds) as running:
            return status(await running.exchange(sent)), running

    return asyncio.run(run())


def refused(sent: bytes, expected: int, **bounds: float) -> None:
    found, running = asked(sent, **bounds)
    assert (found, running.seen) == (expected, []), "it must not reach the server behind"
    assert running.shared.held_bytes == 0


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_nested_100_000_deep_is_refused(opening: bytes) -> None:
    refused(post(opening * 100_000), 400)
    refused(post(b'{"text_input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400)


def test_brackets_in_strings_are_no_nesting() -> None:
    body = json.dumps({"text_input": '[{"\\' * 1000 + '"' * 99}).encode()
    assert asked(post(body))[0] == 200


def test_a_million_chunks_of_one_byte_are_refused() -> None:
    refused(post(in_chunks(b" " * 1_000_000, 1), CHUNKED), 413)


def test_chunks_within_bounds_arrive_as_one_body_of_a_known_length() -> None:
    body = json.dumps({"text_input": "x" * 5000}).encode()
    found, running = asked(post(in_chunks(body, 7), CHUNKED))
    ((head, arrived),) = running.seen
    assert (found, arrived) == (200, body)
    assert b"Content-Length: %d\r\n" % len(body) in head and b"chunked" not in head.lower()


def test_too_many_values_are_refused() -> None:
    refused(post(b"[" + b"1," * 2000 + b"1]"), 413, json_elements=1000)


@pytest.mark.parametrize("head", [CHUNKED, b"Content-Length: 5001"])
def test_a_body_that_is_too_large_is_refused(head: bytes) -> None:
    body = in_chunks(b"x" * 5001, 100) if head == CHUNKED else b"x" * 5001
    refused(post(body, head), 413, body_bytes=5000)


def test_a_body_that_unpacks_to_more_is_refused() -> None:
    refused(post(gzip.compress(b" " * 1_000_000), b"Content-Encoding: gzip"), 413, body_bytes=5000)


def test_a_packed_body_is_unpacked_for_the_server_behind() -> None:
    found, running = asked(post(gzip.compress(b'{"text_input":"x"}'), b"Content-Encoding: gzip"))
    assert (found, running.seen[0][1]) == (200, b'{"text_input":"x"}')
    refused(post(b"no gzip at all", b"Content-Encoding: gzip"), 400)
    refused(post(b"{}", b"Content-Encoding: br"), 400)


def test_headers_that_are_too_long_or_too_many_are_refused() -> None:
    refused(post(b"{}", b"X-Long: " + b"a" * 20_000), 431)
    refused(post(b"{}", *[b"X-%d: 1" % number for number in range(101)]), 431)
    refused(b"GET /" + b"a" * 20_000, 431)


@pytest.mark.parametrize("said", [b"-1", b"3", b"2.0", b"1" * 20, b"0x1", b""])
def test_a_length_of_the_json_that_is_none_is_refused(said: bytes) -> None:
    refused(post(b"{}", b"Inference-Header-Content-Length: " + said), 400)


def test_only_the_json_before_binary_tensors_is_read_as_json() -> None:
    with pytest.raises(Refusal):
        check_body(b"[" * 99, {b"inference-header-content-length": b"99"}, Limits())
    check_body(b"{}" + b"[" * 99, {b"inference-header-content-length": b"2"}, Limits())


def tensor(shape: str, key: str = "shape") -> bytes:
    return f'{{"inputs":[{{"name":"x","{key}":{shape},"datatype":"INT32","shape":{shape}}}]}}'.encode()


@pytest.mark.parametrize(
    "shape", ["[4611686018427387904]", "[0,4611686018427387904]", "[65536,65536]", "[-9]", "[1e3,99999999999]"]
)
def test_a_shape_of_more_values_than_there_can_be_is_refused(shape: str) -> None:
    for key in ("shape", "\\u0073hape", "name"):
        refused(post(tensor(shape, key) + b"\xff", path="/v2/models/m/infer"), 400)
        refused(post(tensor(shape, key).replace(b'"x"', b'"\xff"'), path="/v2/models/m/infer"), 400)
    refused(post(b'{"inputs":[{"shape":' + shape.encode() + b',"shape":[1]}]}', path="/v2/models/m/infer"), 400)


def test_any_other_shape_is_the_server_s_to_judge() -> None:
    for shape in ("[]", "[0]", "[-1,4]", "[1,2048]", '"none"', '["a"]'):
        assert asked(post(tensor(shape), path="/v2/models/m/infer"))[0] == 200
    assert asked(post(b'{"shape":[4611686018427387904]}'))[0] == 200, "generate has no tensors"


@pytest.mark.parametrize("sent", [b"", b"POST /v2/models/x/generate HTTP/1.1\r\nHost: loc"])
def test_who_sends_no_whole_head_in_time_is_sent_away(sent: bytes) -> None:
    found, _ = asked(sent, head_s=0.05)
    assert found == (408 if sent else 0)


def test_who_sends_no_whole_body_in_time_is_sent_away() -> None:
    refused(post(b"{}", b"Content-Length: 100"), 408, body_s=0.05)


def test_bodies_take_no_more_memory_together_than_they_may() -> None:
    async def run() -> None:
        async with front(held_bytes=1500, body_s=20) as running:
            _, first = await running.open()
            first.write(post(b"x" * 1000, b"Content-Length: 1001"))
            while not running.shared.held_bytes:
                await asyncio.sleep(0.01)
            answer = await running.exchange(post(b"x" * 1000))
            assert status(answer) == 503 and b"Retry-After: 1" in answer
            first.close()
            while running.shared.held_bytes:
                await asyncio.sleep(0.01)
            assert status(await running.exchange(post(b'"' + b"x" * 1000 + b'"'))) == 200

    asyncio.run(run())


def test_connections_that_ask_nothing_make_room_and_answers_under_way_do_not() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        async with front(never, connections=3, head_s=60) as running:
            busy = [await running.open() for _ in range(2)]
            for _, writer in busy:
                writer.write(post())
            while len(running.seen) < 2:
                await asyncio.sleep(0.01)
            idle, _ = await running.open()
            assert status(await running.exchange(post())) == 503, "the idle one has hardly had time to ask"
            for connection in running.shared.connections:
                connection.waits_since = connection.waits_since and connection.waits_since - 10
            _, third = await running.open()
            third.write(post())
            assert await idle.read() == b"", "it makes room"
            while len(running.seen) < 3:
                await asyncio.sleep(0.01)
            answer = await running.exchange(post())
            assert status(answer) == 503 and b"Retry-After: 1" in answer
            assert len(running.shared.connections) >= 3

    asyncio.run(run())


def test_who_does_not_read_an_answer_loses_it() -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        except OSError:
            left.set()
            raise

    async def run() -> None:
        async with front(endless, unread_s=0.2) as running:
            _, writer = await running.open()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(post())
            await asyncio.wait_for(left.wait(), 20)

    asyncio.run(run())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 4), st.booleans())
def test_the_depth_of_any_json_is_seen(value: Any, most: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    limits = Limits(json_depth=most)
    if depth(value) > most:
        with pytest.raises(Refusal):
            check_json(text, limits)
    else:
        check_json(text, limits)


@given(st.binary())
def test_any_bytes_are_checked_to_an_end(text: bytes) -> None:
    with suppress(Refusal):
        check_json(b'"' * 99 + text + b"[" * 65, Limits())


def test_a_good_request_passes() -> None:
    async def run() -> None:
        async with front(say_ok) as running:
            answer = await running.exchange(post(b'{"text_input":"hi"}'))
        assert answer.endswith(OK[-2:]) and status(answer) == 200

    asyncio.run(run())
