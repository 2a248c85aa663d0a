"""Prompts that begin alike, on the real server. Run: pytest tests/e2e/test_prefix_cache.py"""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
RULES = " ".join(f"Rule {n}: item {n} costs {n * 7} coins." for n in range(40))
QUESTIONS = ("What does item 3 cost?", "Which item costs 70 coins?", "Say hello.")
HITS = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")


def ask(server: RealServer, number: int, salt: str, **more: Any) -> dict[str, Any]:
    prompt = f"{RULES}\n{QUESTIONS[number]}"
    reply = server.generate(
        text_input=prompt, max_tokens=12, ignore_eos=True, cache_salt=salt, return_perf_metrics=True, **more
    )
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_a_prefix_is_found_with_the_same_salt_alone_and_the_text_is_that_of_the_prompt_computed_whole(
    server: RealServer,
) -> None:
    first = [ask(server, number, f"e2e {number}") for number in range(3)]
    assert all("num_cached_tokens" not in one and one["kv_cache_reused_blocks"] == 0 for one in first)
    again = [ask(server, number, "e2e 0") for number in range(3)]
    assert [one["text_output"] for one in again] == [one["text_output"] for one in first]
    for one in again:
        assert 300 < one["num_cached_tokens"] < one["num_input_tokens"] and one["kv_cache_reused_blocks"] == 1


def test_usage_and_metrics_say_what_was_found(server: RealServer) -> None:
    server.wait_idle()
    time.sleep(1)  # counts arrive in batches
    before = [server.metric(name) for name in HITS]
    url, turns = server.options.openai_url, [{"role": "system", "content": RULES}, {"role": "user", "content": QUESTIONS[0]}]
    chat = {"model": "triune", "messages": turns, "max_tokens": 4, "cache_salt": "e2e usage"}
    whole = [httpx.post(f"{url}/v1/chat/completions", json=chat, timeout=60).json()["usage"] for _ in range(2)]
    found = [one["prompt_tokens_details"]["cached_tokens"] for one in whole]
    assert found[0] == 0 < found[1] < whole[1]["prompt_tokens"]
    asked: dict[str, Any] = {"model": "triune", "input": turns, "max_output_tokens": 4, "cache_salt": "e2e usage"}
    of_response = httpx.post(f"{url}/v1/responses", json=asked, timeout=60).json()["usage"]
    assert of_response["input_tokens_details"]["cached_tokens"] == found[1]
    message = {"model": "triune", "system": RULES, "messages": turns[1:], "max_tokens": 4, "cache_salt": "e2e usage"}
    of_message = httpx.post(f"{url}/v1/messages", json=message, timeout=60).json()["usage"]
    assert of_message["cache_read_input_tokens"] == found[1]
    assert of_message["input_tokens"] + found[1] == whole[0]["prompt_tokens"]
    server.wait_idle()
    time.sleep(1)
    grown = [server.metric(name) - old for name, old in zip(HITS, before, strict=True)]
    assert grown == [4 * whole[0]["prompt_tokens"], 3 * found[1]]


def test_an_empty_salt_is_refused_by_name(server: RealServer) -> None:
    reply = server.generate(text_input="Hi", max_tokens=2, cache_salt="")
    assert reply.status_code == 400 and "cache_salt" in reply.text
