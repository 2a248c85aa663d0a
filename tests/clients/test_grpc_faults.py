"""Run: pytest tests/clients/test_grpc_faults.py - the gRPC clients and a server that is slow, or left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from triune_client import (
    Completion,
    TimeoutError_,
)
from triune_client.grpc import AsyncGrpcClient, GrpcClient

Generate = Callable[..., Completion]


@pytest.mark.parametrize("partial", ["", "half"], ids=["at once", "after a chunk"])
def test_silence_is_a_timeout_and_the_server_is_told(grpc_generate: Generate, grpc_server: Any, partial: str) -> None:
    grpc_server.scripts = [[*([grpc_server.chunk(partial)] if partial else []), "silence"]]
    with pytest.raises(TimeoutError_, match=r"timeout_s=0\.2") as caught:
        grpc_generate(grpc_server.url, call={"timeout_s": 0.2, "request_id": "r1"})
    assert caught.value.partial == partial
    assert grpc_server.left.wait(5)
    assert grpc_server.cancelled == ["r1"]


def test_a_server_that_ignores_the_deadline_is_left(
    grpc_generate: Generate, grpc_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triune_client._flow.DEADLINE_GRACE_S", 0.1)
    monkeypatch.setattr("triune_client.grpc.DEADLINE_GRACE_S", 0.1)
    grpc_server.scripts = [[grpc_server.chunk("half"), "silence"]]
    with pytest.raises(TimeoutError_, match=r"deadline_s=0\.2"):
        grpc_generate(grpc_server.url, call={"deadline_s": 0.2})


def test_a_slow_reader_is_not_the_servers_silence(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), grpc_server.chunk("b"), grpc_server.chunk("c", "stop")]]
    pause = threading.Event()
    with GrpcClient(grpc_server.url) as client, client.stream("hi", timeout_s=0.1) as stream:
        for _ in stream:
            pause.wait(0.15)
    assert stream.completion.text == "abc"


def test_leaving_a_stream_cancels_its_request(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), "silence"]]
    with GrpcClient(grpc_server.url) as client:
        for _ in client.stream("hi", request_id="r1"):
            break
        assert grpc_server.left.wait(5)
    assert grpc_server.cancelled == ["r1"]


def test_leaving_an_async_stream_cancels_its_request(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), "silence"]]

    async def go() -> None:
        async with AsyncGrpcClient(grpc_server.url) as client:
            async with client.stream("hi", request_id="r1") as stream:
                async for _ in stream:
                    break
            assert await asyncio.to_thread(grpc_server.left.wait, 5)

    asyncio.run(go())
    assert grpc_server.cancelled == ["r1"]


def test_a_cancelled_task_frees_its_request(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), "silence"]]

    async def go() -> None:
        async with AsyncGrpcClient(grpc_server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.generate("hi", request_id="r1")
            assert await asyncio.to_thread(grpc_server.left.wait, 5)

    asyncio.run(go())
    assert grpc_server.cancelled == ["r1"]


def test_cancel_from_another_thread_ends_a_reader_that_waits(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), "silence", grpc_server.chunk("", "cancelled")]]
    with GrpcClient(grpc_server.url) as client:
        stream = client.stream("hi", request_id="r1")
        assert next(stream).text == "a"
        timer = threading.Timer(0.1, stream.cancel)
        timer.start()
        assert [piece.text for piece in stream] in ([], [""])
        timer.join()
        assert stream.completion.finish_reason == "cancelled"
