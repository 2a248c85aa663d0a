"""Run: pytest tests/clients/test_http_faults.py - the HTTP clients against real sockets that fail on purpose."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.real_server import free_port
from triune_client import AsyncClient, Client, Completion, ConnectError, Overloaded, StreamBroken, TimeoutError_
from triune_client.testing import mock_server

Generate = Callable[..., Completion]
Scripted = Callable[[list[list[Any]]], Any]
Bytes = dict[str, Callable[..., bytes]]


def test_a_port_where_nothing_listens_is_a_connect_error(generate: Generate, no_pause: None) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectError, match=f"nothing answers at {url}"):
        generate(url)


def test_a_refused_connection_is_tried_again(scripted: Scripted, wire_bytes: Bytes) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("ok", "stop")]])
    with Client(f"http://127.0.0.1:{free_port()}", max_retries=1) as client:
        stream = client.stream("hi")
        # The server "comes up" between the two attempts.
        original = client._http._base_url

        def come_up(pause_s: float) -> None:
            client._http.base_url = server.url

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("triune_client._sync.time.sleep", come_up)
            assert [chunk.text for chunk in stream] == ["ok"]
        assert original != client._http._base_url


def test_a_full_server_is_asked_again_on_a_real_socket(generate: Generate, scripted: Scripted, wire_bytes: Bytes) -> None:
    full = wire_bytes["response"](503, b'{"error": "queue is full"}', "retry-after: 0")
    server = scripted([[full], [full], [wire_bytes["sse_head"](), wire_bytes["event"]("ok", "stop")]])
    assert generate(server.url).text == "ok"
    assert len(server.requests) == 3
    assert len({request["id"] for request in server.requests}) == 1


def test_a_connection_lost_before_the_first_chunk_is_not_tried_again(generate: Generate, scripted: Scripted) -> None:
    server = scripted([["reset"], ["reset"]])
    with pytest.raises(StreamBroken) as caught:
        generate(server.url)
    assert caught.value.partial == ""
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_lost_after_a_chunk_keeps_what_came(
    generate: Generate, scripted: Scripted, wire_bytes: Bytes, end: str
) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("half"), 0.05, end], []])
    with pytest.raises(StreamBroken) as caught:
        generate(server.url)
    assert caught.value.partial == "half"
    assert len(server.requests) == 1


def test_characters_split_over_packets_arrive_whole(generate: Generate, scripted: Scripted, wire_bytes: Bytes) -> None:
    payload = 'data: {"text_output": "é中🙂"}\r\n\r\n'.encode() + wire_bytes["event"]("", "stop")
    pieces: list[Any] = [part for at in range(len(payload)) for part in (payload[at : at + 1], 0.001)]
    server = scripted([[wire_bytes["sse_head"](), *pieces]])
    assert generate(server.url).text == "é中🙂"


def test_silence_is_a_timeout_and_the_server_is_told(generate: Generate, scripted: Scripted, wire_bytes: Bytes) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("half"), "watch"]])
    with pytest.raises(TimeoutError_, match=r"timeout_s=0\.2") as caught:
        generate(server.url, call={"timeout_s": 0.2, "request_id": "r1"})
    assert caught.value.partial == "half"
    assert server.left.wait(5)
    assert server.cancelled == ["r1"]


def test_a_server_that_accepts_and_says_nothing_is_a_timeout(generate: Generate, scripted: Scripted) -> None:
    server = scripted([["watch"]])
    with pytest.raises(TimeoutError_):
        generate(server.url, call={"timeout_s": 0.2})
    assert server.left.wait(5)


def test_a_server_that_ignores_the_deadline_is_left(
    generate: Generate, scripted: Scripted, wire_bytes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triune_client._flow.DEADLINE_GRACE_S", 0.1)
    drip = [part for _ in range(100) for part in (wire_bytes["event"]("a"), 0.02)]
    server = scripted([[wire_bytes["sse_head"](), *drip]])
    with pytest.raises(TimeoutError_, match=r"deadline_s=0\.2"):
        generate(server.url, call={"deadline_s": 0.2})
    assert 0 < server.requests[0]["timeout_s"] <= 0.2


def test_leaving_a_stream_closes_its_connection(scripted: Scripted, wire_bytes: Bytes) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("a"), "watch"]])
    with Client(server.url) as client:
        for _ in client.stream("hi", request_id="r1"):
            break
        assert server.left.wait(5)
    assert server.cancelled == ["r1"]


def test_leaving_an_async_stream_closes_its_connection(scripted: Scripted, wire_bytes: Bytes) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("a"), "watch"]])

    async def go() -> None:
        async with AsyncClient(server.url) as client:
            async with client.stream("hi", request_id="r1") as stream:
                async for _ in stream:
                    break
            assert await asyncio.to_thread(server.left.wait, 5)

    asyncio.run(go())
    assert server.cancelled == ["r1"]


def test_a_cancelled_task_in_generate_frees_its_request(scripted: Scripted, wire_bytes: Bytes) -> None:
    server = scripted([[wire_bytes["sse_head"](), wire_bytes["event"]("a"), "watch"]])

    async def go() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.generate("hi", request_id="r1")
            assert await asyncio.to_thread(server.left.wait, 5)

    asyncio.run(go())
    assert server.cancelled == ["r1"]


def test_cancel_from_another_thread_ends_a_reader_that_waits() -> None:
    with mock_server(["a"] * 500, delay_s=0.02) as server, Client(server.url) as client:
        stream = client.stream("hi", request_id="r1")
        assert next(stream).text == "a"
        timer = threading.Timer(0.1, stream.cancel)
        timer.start()
        for _ in stream:
            pass
        timer.join()
        assert stream.completion.finish_reason == "cancelled"
        assert server.cancelled == ["r1"]


def test_cancel_by_id_ends_another_callers_generate() -> None:
    async def go() -> str:
        with mock_server(["a"] * 500, delay_s=0.02) as server:
            async with AsyncClient(server.url) as client:
                async with client.stream("hi", request_id="r1") as stream:
                    await anext(stream)
                    await client.cancel("r1")
                    async for _ in stream:
                        pass
                return stream.completion.finish_reason

    assert asyncio.run(go()) == "cancelled"


def test_a_full_server_that_stays_full_is_overloaded(generate: Generate, scripted: Scripted, wire_bytes: Bytes) -> None:
    full = wire_bytes["response"](503, b'{"error": "queue is full"}', "retry-after: 0")
    server = scripted([[full], [full], [full]])
    with pytest.raises(Overloaded, match="queue is full"):
        generate(server.url)


def test_ready_is_false_where_nothing_listens() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.ready()
