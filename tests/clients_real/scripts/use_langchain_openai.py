"""LangChain's OpenAI package, against the OpenAI-compatible API."""

from __future__ import annotations

from typing import Any

from common import ADDRESSES, FRANCE, QUESTION, main
from langchain_openai import ChatOpenAI, OpenAI

ADDRESS: Any = {"base_url": ADDRESSES["OPENAI"], "api_key": "none", "model": "triune", "temperature": 0, "max_retries": 0}


def chat() -> dict[str, Any]:
    model = ChatOpenAI(max_tokens=24, **ADDRESS)
    whole = model.invoke(QUESTION)
    several = model.batch([QUESTION, "What is the capital of Spain?"])
    return {
        "text": whole.content,
        "streamed": "".join(str(piece.content) for piece in model.stream(QUESTION)),
        "tokens": whole.usage_metadata["total_tokens"],
        "batch": [answer.content for answer in several],
        "reason": whole.response_metadata["finish_reason"],
    }


def completion() -> dict[str, Any]:
    model = OpenAI(max_tokens=6, **ADDRESS)
    return {"text": model.invoke(FRANCE), "streamed": "".join(model.stream(FRANCE))}


def responses() -> dict[str, Any]:
    found = {}
    for name, kept in (("sent", False), ("kept", True)):
        model = ChatOpenAI(max_tokens=24, use_responses_api=True, use_previous_response_id=kept, **ADDRESS)
        whole = model.invoke(QUESTION)
        more = model.invoke([("user", QUESTION), whole, ("user", "And of Spain?")])
        streamed = "".join(piece.text for piece in model.stream(QUESTION))
        found[name] = {"text": whole.text, "streamed": streamed, "more": more.text}
    return found


def tools() -> dict[str, Any]:
    city = {"enum": ["Paris", "Rome"]}
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"city": city}, "required": ["city"]}}
    model = ChatOpenAI(max_tokens=100, **ADDRESS).bind_tools([{"type": "function", "function": weather}], tool_choice="weather")
    pieces = list(model.stream(QUESTION))
    together = pieces[0]
    for piece in pieces[1:]:
        together += piece
    return {
        "called": [[call["name"], call["args"]] for call in model.invoke(QUESTION).tool_calls],
        "streamed": [[call["name"], call["args"]] for call in together.tool_calls],
    }


main(chat, completion, responses, tools)
