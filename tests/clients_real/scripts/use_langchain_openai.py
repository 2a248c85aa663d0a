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


main(chat, completion)
