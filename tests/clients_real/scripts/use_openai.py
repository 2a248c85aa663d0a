"""OpenAI's client library, against the OpenAI-compatible API."""

from __future__ import annotations

from typing import Any

import openai
from common import ADDRESSES, FRANCE, QUESTION, main

CLIENT = openai.OpenAI(base_url=ADDRESSES["OPENAI"], api_key="none", max_retries=0)
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


def chat() -> dict[str, Any]:
    whole = CLIENT.chat.completions.create(model="triune", messages=MESSAGES, max_tokens=24, temperature=0)
    pieces, usage = [], None
    options: Any = {"include_usage": True}
    for event in CLIENT.chat.completions.create(
        model="triune", messages=MESSAGES, max_tokens=24, temperature=0, stream=True, stream_options=options
    ):
        usage = event.usage or usage
        pieces += [choice.delta.content or "" for choice in event.choices]
    return {
        "text": whole.choices[0].message.content,
        "reason": whole.choices[0].finish_reason,
        "streamed": "".join(pieces),
        "pieces": len(pieces),
        "usage": [whole.usage.total_tokens if whole.usage else 0, usage.total_tokens if usage else 0],
    }


def completion() -> dict[str, Any]:
    whole = CLIENT.completions.create(model="triune", prompt=FRANCE, max_tokens=6, temperature=0, n=2, logprobs=2)
    streamed = CLIENT.completions.create(model="triune", prompt=FRANCE, max_tokens=6, temperature=0, stream=True)
    logprobs = whole.choices[0].logprobs
    return {
        "texts": [choice.text for choice in whole.choices],
        "tokens": logprobs.tokens if logprobs else [],
        "streamed": "".join(event.choices[0].text for event in streamed),
    }


def logprobs() -> dict[str, Any]:
    whole = CLIENT.chat.completions.create(
        model="triune", messages=MESSAGES, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    )
    found = whole.choices[0].logprobs
    assert found is not None and found.content is not None
    return {
        "text": "".join(entry.token for entry in found.content),
        "content": whole.choices[0].message.content,
        "tops": [len(entry.top_logprobs) for entry in found.content],
        "best_first": all(entry.top_logprobs[0].logprob == entry.logprob for entry in found.content),
    }


def tools() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    ask: Any = {
        "model": "triune", "messages": MESSAGES, "tools": [tool], "tool_choice": "required", "max_tokens": 200,
        "seed": 1, "n": 2,
    }  # fmt: skip
    whole = CLIENT.chat.completions.create(**ask)
    pieces = 0
    with CLIENT.chat.completions.stream(**ask) as stream:
        for event in stream:
            pieces += event.type == "tool_calls.function.arguments.delta"
        final = stream.get_final_completion()

    def calls(choices: Any) -> list[list[str]]:
        return [[call.function.arguments for call in choice.message.tool_calls or ()] for choice in choices]

    return {
        "whole": calls(whole.choices),
        "streamed": calls(final.choices),
        "pieces": pieces,
        "reasons": [choice.finish_reason for choice in whole.choices],
    }


def responses() -> dict[str, Any]:
    ask: Any = {"model": "triune", "input": QUESTION, "max_output_tokens": 24, "temperature": 0}
    whole = CLIENT.responses.create(**ask)
    with CLIENT.responses.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    more = {"input": "And of Spain?", "max_output_tokens": 24, "temperature": 0}
    kept = CLIENT.responses.create(model="triune", previous_response_id=whole.id, **more)
    history: Any = [{"role": "user", "content": QUESTION}, *whole.output, {"role": "user", "content": "And of Spain?"}]
    sent = CLIENT.responses.create(model="triune", store=False, **(more | {"input": history}))
    read = CLIENT.responses.retrieve(whole.id)
    items = [item.type for item in CLIENT.responses.input_items.list(kept.id)]
    CLIENT.responses.delete(whole.id)
    return {
        "texts": [whole.output_text, final.output_text, read.output_text],
        "kinds": kinds,
        "more": [kept.output_text, sent.output_text],
        "items": items,
        "usage": [whole.usage.total_tokens if whole.usage else 0, final.usage.total_tokens if final.usage else 0],
    }


def response_tools() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tool: Any = {"type": "function", "name": "weather", "parameters": schema, "strict": False}
    ask: Any = {
        "model": "triune", "input": QUESTION, "tools": [tool], "tool_choice": "required", "max_output_tokens": 200, "seed": 1,
    }  # fmt: skip
    extra = {"seed": ask.pop("seed")}
    whole = CLIENT.responses.create(**ask, extra_body=extra)
    with CLIENT.responses.stream(**ask, extra_body=extra) as stream:
        final = stream.get_final_response()
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "Sunny"}
        for item in whole.output
        if item.type == "function_call"
    ]
    after = CLIENT.responses.create(model="triune", previous_response_id=whole.id, input=outputs, max_output_tokens=16)
    return {
        "whole": [item.arguments for item in whole.output if item.type == "function_call"],
        "streamed": [item.arguments for item in final.output if item.type == "function_call"],
        "after": after.usage.output_tokens if after.usage else 0,
    }


def errors() -> dict[str, Any]:
    found = {}
    bad: dict[str, dict[str, Any]] = {
        "model": {"model": "gpt-9"},
        "length": {"max_tokens": 10**6},
        "temperature": {"temperature": 9},
        "audio": {"modalities": ["audio"]},
    }
    for name, more in bad.items():
        try:
            CLIENT.chat.completions.create(**({"model": "triune", "messages": MESSAGES} | more))
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.code, error.param]
    return {"errors": found, "models": [model.id for model in CLIENT.models.list()]}


main(chat, completion, logprobs, tools, responses, response_tools, errors)
