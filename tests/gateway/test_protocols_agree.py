"""The same conversation has the same text in every protocol. Run: pytest tests/gateway/test_protocols_agree.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton

TURNS: Any = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Because of the air."},
    {"role": "user", "content": "Say more."},
]
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9}


@pytest.fixture(scope="module")
def client(server: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.mark.parametrize("how", [{"temperature": 0}, SAMPLED])
def test_a_response_is_the_chats_answer_streamed_or_not(client: openai.OpenAI, how: dict[str, Any]) -> None:
    chat = client.chat.completions.create(model="triune", messages=TURNS, max_tokens=40, seed=7, **how)
    ask: dict[str, Any] = {"model": "triune", "input": TURNS, "max_output_tokens": 40, "extra_body": {"seed": 7}, **how}
    whole = client.responses.create(**ask)
    with client.responses.stream(**ask) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert whole.output_text == chat.choices[0].message.content == "".join(pieces)
    assert whole.usage is not None and chat.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)


def test_instructions_and_an_answer_that_is_kept_are_the_same_conversation(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "triune", "max_output_tokens": 24, "temperature": 0, "instructions": "Be brief."}
    first = client.responses.create(input="Name a colour.", **ask)
    kept = client.responses.create(input="Another.", previous_response_id=first.id, **ask)
    turns: Any = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "Another."},
    ]  # fmt: skip
    chat = client.chat.completions.create(model="triune", messages=turns, max_tokens=24, temperature=0)
    assert kept.output_text == chat.choices[0].message.content


def test_a_message_is_the_chats_answer_streamed_or_not(client: openai.OpenAI, server: RealServer) -> None:
    chat = client.chat.completions.create(model="triune", messages=TURNS, max_tokens=40, temperature=0)
    body = {"model": "triune", "system": TURNS[0]["content"], "messages": TURNS[1:], "max_tokens": 40, "temperature": 0}
    url = f"{server.options.openai_url}/v1/messages"
    whole = httpx.post(url, json=body, timeout=60).json()
    streamed = httpx.post(url, json=body | {"stream": True}, timeout=60).text
    events = [json.loads(line.removeprefix("data: ")) for line in streamed.splitlines() if line.startswith("data: ")]
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    assert whole["content"][0]["text"] == text == chat.choices[0].message.content


@pytest.mark.parametrize("effort", ["none", "low", "high"])
def test_an_effort_has_no_effect_on_this_model_which_does_not_think(client: openai.OpenAI, effort: Any) -> None:
    ask: dict[str, Any] = {"model": "triune", "messages": TURNS, "max_tokens": 16, "temperature": 0}
    plain, wished = (client.chat.completions.create(**ask, **more) for more in ({}, {"reasoning_effort": effort}))
    assert wished.choices[0].message.content == plain.choices[0].message.content
