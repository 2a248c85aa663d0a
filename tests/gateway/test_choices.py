"""Several choices of one answer, which the ensemble makes as a group. Run: pytest tests/gateway/test_choices.py"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from support.real_server import RealServer

pytestmark = pytest.mark.triton

PARIS: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def settled(server: RealServer, name: str) -> float:
    """A counter when it has stood still for a second: the server publishes what it counts with a delay."""
    value, since = server.metric(name), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.1)
        if (now := server.metric(name)) != value:
            value, since = now, time.monotonic()
    return value


def gathered(events: Any) -> tuple[dict[int, str], dict[int, str | None], Any]:
    """Of a stream's choices, the text and the end of each; and the usage."""
    texts: dict[int, str] = {}
    reasons: dict[int, str | None] = {}
    usage = None
    for event in events:
        usage = event.usage or usage
        for choice in event.choices:
            text = choice.text if hasattr(choice, "text") else choice.delta.content or ""
            texts[choice.index] = texts.get(choice.index, "") + text
            assert reasons.get(choice.index) is None
            reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


@pytest.mark.parametrize("seed", [7, 2**63])
def test_choices_are_what_requests_with_their_seeds_get_alone(client: openai.OpenAI, server: RealServer, seed: int) -> None:
    ask: dict[str, Any] = {"model": "triune", "messages": PARIS, "max_tokens": 24, "temperature": 1.2, "stop": ["."]}
    computed = settled(server, "vllm:prompt_tokens_total")
    salted = ask | {"n": 4, "seed": seed}  # so that all of the prompt is computed
    found = client.chat.completions.create(**salted, extra_body={"cache_salt": f"{seed} whole"})
    assert found.usage is not None
    # The prompt is computed once, and counted once.
    assert settled(server, "vllm:prompt_tokens_total") - computed == found.usage.prompt_tokens
    seeds = [(seed + number * 0x9E3779B97F4A7C15) % 2**64 for number in range(4)]
    alone = [client.chat.completions.create(**ask, seed=one) for one in seeds]
    assert [(c.message.content, c.finish_reason) for c in found.choices] == [
        (one.choices[0].message.content, one.choices[0].finish_reason) for one in alone
    ]
    assert found.usage.prompt_tokens == alone[0].usage.prompt_tokens  # type: ignore[union-attr]
    assert found.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)  # type: ignore[union-attr]
    salt = {"cache_salt": f"{seed} streamed"}
    streamed = client.chat.completions.create(**salted, stream=True, stream_options={"include_usage": True}, extra_body=salt)
    texts, reasons, usage = gathered(streamed)
    assert texts == {choice.index: choice.message.content for choice in found.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in found.choices}
    assert usage == found.usage


def test_choices_of_several_prompts_keep_their_order(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "triune", "max_tokens": 6, "temperature": 1.0, "seed": 3, "n": 3, "logprobs": 2}
    prompts = ["The capital of France is", "1, 2, 3, 4,"]
    found = client.completions.create(**ask, prompt=prompts)
    apart = [client.completions.create(**ask, prompt=prompt) for prompt in prompts]
    assert [choice.index for choice in found.choices] == [*range(6)]
    together = [(choice.text, choice.logprobs) for choice in found.choices]
    assert together == [(choice.text, choice.logprobs) for one in apart for choice in one.choices]
    assert len({text for text, _ in together[:3]}) > 1
    for choice in found.choices:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        assert len(choice.logprobs.token_logprobs) == 6
    sums = [sum(getattr(one.usage, name) for one in apart) for name in ("prompt_tokens", "completion_tokens")]
    assert found.usage is not None and [found.usage.prompt_tokens, found.usage.completion_tokens] == sums
    texts, _, _ = gathered(client.completions.create(**ask, prompt=prompts, stream=True))
    assert [texts[number] for number in range(6)] == [text for text, _ in together]


@pytest.mark.parametrize("stream", [False, True])
def test_more_choices_than_slots_are_refused(client: openai.OpenAI, server: RealServer, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="triune", messages=PARIS, n=20, stream=stream)
    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")
    assert "20 sequences are asked for, but this engine serves 16 at once" in caught.value.message
    server.wait_idle(timeout_s=5)


def test_choices_call_tools_each_by_itself(client: openai.OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome", "Oslo", "Bern"]}},
                "required": ["city"],
            },
        },
    }
    ask: dict[str, Any] = {
        "model": "triune", "messages": [{"role": "user", "content": "The weather in a town that you like?"}],
        "seed": 5, "n": 3,
        "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 120, "temperature": 1.5,
    }  # fmt: skip
    whole = client.chat.completions.create(**ask)
    written = [[call.function.arguments for call in choice.message.tool_calls or ()] for choice in whole.choices]  # type: ignore[union-attr]
    reasons = [choice.finish_reason for choice in whole.choices]
    assert "tool_calls" in reasons and set(reasons) <= {"tool_calls", "length"}  # white space may go on for long
    assert [len(calls) for calls in written] == [1, 1, 1] and len({calls[0] for calls in written}) > 1
    streamed = ["", "", ""]
    for event in client.chat.completions.create(**ask, stream=True):
        for call in event.choices[0].delta.tool_calls or ():
            assert call.function is not None
            streamed[event.choices[0].index] += call.function.arguments or ""
    assert streamed == [calls[0] for calls in written]
