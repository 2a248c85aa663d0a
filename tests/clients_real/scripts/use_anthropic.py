"""Anthropic's client library, against /v1/messages."""

from __future__ import annotations

from typing import Any

import anthropic
from common import ADDRESSES, QUESTION, main

CLIENT = anthropic.Anthropic(base_url=ADDRESSES["OPENAI"].removesuffix("/v1"), api_key="none", max_retries=0)
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0}
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
TOOLS: Any = [{"name": "weather", "description": "The weather of a city.", "input_schema": CITY}]


def message() -> dict[str, Any]:
    ask: Any = {"model": "triune", "max_tokens": 8192, "messages": MESSAGES, "extra_body": GREEDY}
    whole = CLIENT.messages.create(**ask)
    with CLIENT.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    return {
        "text": whole.content[0].text,
        "pieces": pieces,
        "reasons": [whole.stop_reason, final.stop_reason],
        "usage": [whole.usage.to_dict(), final.usage.to_dict()],
    }


def tools() -> dict[str, Any]:
    ask: Any = {
        "model": "triune", "max_tokens": 200, "messages": MESSAGES, "tools": TOOLS, "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "extra_body": GREEDY,
    }  # fmt: skip
    whole = CLIENT.messages.create(**ask)
    with CLIENT.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "Sunny"} for block in final.content]
    turns = [*MESSAGES, {"role": "assistant", "content": final.content}, {"role": "user", "content": results}]
    after = CLIENT.messages.create(model="triune", max_tokens=20, messages=turns, tools=TOOLS)
    return {
        "whole": [[block.name, block.input] for block in whole.content if block.type == "tool_use"],
        "streamed": [[block.name, block.input] for block in final.content if block.type == "tool_use"],
        "reason": final.stop_reason,
        "after": after.usage.output_tokens,
    }


def errors() -> dict[str, Any]:
    found = {}
    for name, more in {"model": {"model": "x"}, "container": {"container": "x"}, "tokens": {"max_tokens": 0}}.items():
        ask: Any = {"model": "triune", "max_tokens": 5, "messages": MESSAGES} | more
        try:
            CLIENT.messages.create(**ask)
        except anthropic.APIStatusError as error:
            found[name] = [type(error).__name__, error.body["error"]["type"]]  # type: ignore[index,call-overload]
    return found


main(message, tools, errors)
