"""Several answers to one call, over HTTP and gRPC. Run: pytest tests/clients/test_several.py"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from triune_client import AsyncClient, Chunk, Client, Completion, StreamBroken
from triune_client.grpc import AsyncGrpcClient, GrpcClient
from triune_client.testing import MockTransport

ANSWERS = ("Alpha beta.", "Gamma", "Delta epsilon zeta")


def event(text: str, sequence: int, index: int, reason: str = "") -> bytes:
    counted = 7 if (sequence, index) == (0, 0) else 0
    outputs = {
        "text_output": text, "sequence_index": sequence, "chunk_index": index, "finish_reason": reason,
        "num_input_tokens": counted, "num_output_tokens": 1,
    }  # fmt: skip
    return b"data: " + json.dumps(outputs).encode() + b"\n\n"


def script(head: bytes) -> list[Any]:
    """The answers a word at a time, in turn."""
    words = [text.split(" ") for text in ANSWERS]
    found = [head]
    for index in range(3):
        for sequence, those in enumerate(words):
            if index < len(those):
                found.append(event(" " * bool(index) + those[index], sequence, index, "" if those[index + 1 :] else "stop"))
    return found


def read_sync(make: Any, url: str, **params: Any) -> tuple[list[Chunk], tuple[Completion, ...]]:
    with make(url) as client, client.stream("hi", **params) as stream:
        chunks = list(stream)
        return chunks, stream.completions


def read_async(make: Any, url: str, **params: Any) -> tuple[list[Chunk], tuple[Completion, ...]]:
    async def run() -> tuple[list[Chunk], tuple[Completion, ...]]:
        async with make(url) as client, client.stream("hi", **params) as stream:
            chunks = [chunk async for chunk in stream]
            return chunks, stream.completions

    return asyncio.run(run())


def check(chunks: list[Chunk], completions: tuple[Completion, ...]) -> None:
    texts = ["", "", ""]
    for chunk in chunks:
        texts[chunk.sequence] += chunk.text
    assert tuple(texts) == tuple(one.text for one in completions) == ANSWERS
    assert {one.finish_reason for one in completions} == {"stop"}
    assert [one.usage.input_tokens for one in completions] == [7, 0, 0]
    assert [one.usage.output_tokens for one in completions] == [2, 1, 3]


@pytest.mark.parametrize(("make", "read"), [(Client, read_sync), (AsyncClient, read_async)], ids=["sync", "async"])
def test_http_clients_tell_the_answers_apart(scripted: Any, wire_bytes: Any, make: Any, read: Any) -> None:
    server = scripted([script(wire_bytes["sse_head"]())])
    check(*read(make, server.url, n=3, seed=5))
    assert (server.requests[0]["n"], server.requests[0]["seed"]) == (3, 5)
    assert server.cancelled == []


@pytest.mark.parametrize(("make", "read"), [(GrpcClient, read_sync), (AsyncGrpcClient, read_async)], ids=["sync", "async"])
def test_grpc_clients_tell_the_answers_apart(grpc_server: Any, make: Any, read: Any) -> None:
    events = [json.loads(one.removeprefix(b"data: ")) for one in script(b"")[1:]]
    grpc_server.scripts.append([*(grpc_server.answer(**one) for one in events), grpc_server.answer()])
    check(*read(make, grpc_server.url, n=3))


def test_the_stream_is_the_first_answer_where_only_one_is_meant() -> None:
    with Client(transport=MockTransport(["a", "b"])) as client, client.stream("hi", n=2) as stream:
        assert [(chunk.sequence, chunk.text) for chunk in stream] == [(0, "a"), (1, "a"), (0, "b"), (1, "b")]
        assert stream.text == stream.completion.text == "ab"
        assert [one.text for one in stream.completions] == ["ab", "ab"]
    with Client(transport=MockTransport("a")) as client, client.stream("hi") as stream:
        list(stream)
        assert stream.completions == (stream.completion,)


def test_leaving_ends_all_answers(scripted: Any, wire_bytes: Any) -> None:
    server = scripted([[*script(wire_bytes["sse_head"]())[:3], "watch"]])
    with Client(server.url) as client, client.stream("hi", n=3) as stream:
        next(stream)
        next(stream)
    assert server.cancelled == [stream.request_id]
    assert [(one.text, one.finish_reason) for one in stream.completions] == [
        ("Alpha", "cancelled"), ("Gamma", "stop"), ("", "cancelled"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "events",
    [script(b"")[1:-1], [event("a", 0, 0, "stop")], [*script(b"")[1:-1], event("a", 3, 0, "stop"), script(b"")[-1]]],
    ids=["one does not end", "others do not begin", "one too many"],
)
def test_a_stream_without_all_its_answers_is_broken(scripted: Any, wire_bytes: Any, events: list[bytes]) -> None:
    server = scripted([[wire_bytes["sse_head"](), *events]])
    with Client(server.url) as client, client.stream("hi", n=3) as stream, pytest.raises(StreamBroken):
        list(stream)


@pytest.mark.parametrize("call", [lambda client: client.generate, lambda client: client.chat], ids=["generate", "chat"])
def test_who_returns_one_answer_refuses_to_be_asked_for_several(call: Callable[[Client], Any]) -> None:
    transport = MockTransport("a")
    with Client(transport=transport).with_options(n=2) as client, pytest.raises(ValueError, match="n is 2"):
        call(client)("hi")
    assert transport.requests == []
