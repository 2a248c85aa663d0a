"""Many streams at once, clients that leave, cancels and deadlines. Run: pytest tests/e2e/test_streams.py"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
STARTS = [
    "The capital of France is", "世界上最高的山是", "Emoji: 😀😃😄 then", "def fibonacci(n):\n", "Es war einmal ein König,",
    "The quick brown fox", "今天天气很好，我们去", "🚀🌕 A story about the moon:",
]  # fmt: skip


def prompt(number: int) -> str:
    """Distinct prompts of 5 to 170 tokens."""
    filler = " ".join(f"Item {i} costs {number * 7 + i} coins." for i in range((number % 8) * 2))
    return f"{filler} {STARTS[number % len(STARTS)]}".strip()


async def stream_text(client: httpx.AsyncClient, url: str, body: dict[str, object], leave_after: int | None = None) -> str:
    """The text of a stream; leaves after that many events if asked to."""
    text = ""
    async with client.stream("POST", f"{url}/v2/models/triune/generate_stream", json=body) as response:
        assert response.status_code == 200, await response.aread()
        count = 0
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                assert "error" not in event, event
                text += event["text_output"]
                count += 1
                if count == leave_after:
                    return text
    return text


def body(number: int) -> dict[str, object]:
    return {"text_input": prompt(number), "max_tokens": 8 + number % 5 * 6, "stream": True, "ignore_eos": True}


def test_64_streams_with_disconnects_equal_their_lone_runs_and_leak_no_slot(server: RealServer) -> None:
    chance = random.Random(7)
    leaves = {number: chance.randint(1, 4) for number in chance.sample(range(64), 20)}

    async def together() -> list[str]:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=100)) as client:
            jobs = (stream_text(client, server.url, body(n), leaves.get(n)) for n in range(64))
            return await asyncio.gather(*jobs)

    async def alone(number: int) -> str:
        async with httpx.AsyncClient(timeout=120) as client:
            return await stream_text(client, server.url, body(number))

    texts = asyncio.run(together())
    server.wait_idle()
    for number in range(64):
        expected = asyncio.run(alone(number)) if number not in leaves else None
        assert expected is None or texts[number] == expected, number
    server.wait_idle()


def test_a_disconnect_frees_its_slot_at_once(server: RealServer) -> None:
    """Shown by a waiting request: with every slot taken by long answers, it starts only when one is freed."""
    slots = int(server.metric("nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="max"))
    long = {"text_input": "Once upon a time", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    before = server.metric("triune_requests_aborted_total", reason="cancelled")

    async def measure() -> None:
        kept: list[AsyncIterator[str]] = []
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=100)) as client:
            url = f"{server.url}/v2/models/triune/generate_stream"

            async def open_stream() -> AbstractAsyncContextManager[httpx.Response]:
                stream = client.stream("POST", url, json=long)
                lines = (await stream.__aenter__()).aiter_lines()
                await anext(lines)
                kept.append(lines)  # a generator that nobody holds is closed, and its connection with it
                return stream

            streams = await asyncio.gather(*(open_stream() for _ in range(slots)))
            for _ in range(5):
                stream = streams.pop(0)
                short = {"text_input": "Hi", "max_tokens": 1, "stream": True}
                waiting = asyncio.create_task(stream_text(client, server.url, short))
                await asyncio.sleep(0.5)
                assert not waiting.done(), "a slot was free before the disconnect"
                await stream.__aexit__(None, None, None)
                await asyncio.wait_for(waiting, 10)  # the other answers take a minute
                streams.append(await open_stream())
            for stream in streams:
                await stream.__aexit__(None, None, None)

    asyncio.run(measure())
    server.wait_idle()
    assert server.metric("triune_requests_aborted_total", reason="cancelled") - before == slots + 5


def test_cancel_by_id_ends_the_answer_early(server: RealServer) -> None:
    text, reason = "", ""
    long = {"id": "to-cancel", "text_input": "Once upon a time", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v2/models/triune/generate_stream", json=long, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                text, reason = text + event["text_output"], event["finish_reason"]
                if event["chunk_index"] == 2:
                    assert server.generate(id="to-cancel", cancel=True).status_code == 200
    assert reason == "cancelled"
    assert 0 < len(text) < 4000
    server.wait_idle()


def test_a_deadline_ends_the_answer_with_its_reason(server: RealServer) -> None:
    began = time.monotonic()
    reply = server.generate(text_input="Once upon a time", max_tokens=1500, ignore_eos=True, timeout_s=0.5).json()
    assert reply["finish_reason"] == "deadline"
    assert reply["text_output"]
    assert time.monotonic() - began < 5
    server.wait_idle()


def test_a_full_queue_is_refused_at_once_and_nothing_else_is_lost(server: RealServer) -> None:
    limit = 256 + 16
    short = {"text_input": "Hi", "max_tokens": 8, "ignore_eos": True}

    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=limit + 100)) as client:
            url = f"{server.url}/v2/models/triune/generate"
            return await asyncio.gather(*(client.post(url, json=short) for _ in range(limit + 60)))

    replies = asyncio.run(flood())
    codes = {r.status_code for r in replies}
    assert codes <= {200, 400, 503}, codes  # Triton 2.51 says 400 whatever the error's own code is
    texts = {r.json()["text_output"] for r in replies if r.status_code == 200}
    assert len(texts) == 1
    refusals = [r.json()["error"] for r in replies if r.status_code != 200]
    assert refusals and len(replies) - len(refusals) >= limit, "a place was left empty"
    assert all("UNAVAILABLE [overloaded]: " in error and " wait" in error for error in refusals), refusals[0]
    server.wait_idle()
