"""LiteLLM: its `triton/` provider, /generate and /infer, and the OpenAI-compatible API."""

from __future__ import annotations

from typing import Any

import litellm
from common import ADDRESSES, FRANCE, QUESTION, main

litellm.telemetry = False


def complete(path: str, content: str = FRANCE, **more: Any) -> Any:
    return litellm.completion(
        model="triton/ensemble",
        api_base=f"{ADDRESSES['HTTP']}/v2/models/{path}",
        messages=[{"role": "user", "content": content}],
        max_tokens=6,
        **more,
    )


def generate() -> dict[str, Any]:
    found = {}
    for model in ("ensemble", "triune", "vllm_model", "tensorrt_llm_bls"):
        whole = complete(f"{model}/generate").choices[0].message.content
        pieces = [chunk.choices[0].delta.content or "" for chunk in complete(f"{model}/generate", stream=True)]
        found[model] = {"text": whole, "streamed": "".join(pieces), "pieces": len(pieces)}
    words = complete("ensemble/generate", bad_words=[""], stop_words=["."])
    return {"models": found, "stopped": words.choices[0].message.content}


def infer() -> dict[str, Any]:
    return {"text": complete("triune_infer/infer", top_k=1).choices[0].message.content}


def openai() -> dict[str, Any]:
    asked = [{"role": "user", "content": QUESTION}]
    address = {"model": "openai/triune", "api_base": ADDRESSES["OPENAI"], "api_key": "none", "messages": asked}
    whole = litellm.completion(max_tokens=24, temperature=0, **address)
    pieces = litellm.completion(max_tokens=24, temperature=0, stream=True, **address)
    return {
        "text": whole.choices[0].message.content,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in pieces),
        "tokens": whole.usage.total_tokens,
    }


def error() -> dict[str, Any]:
    try:
        complete("ensemble/generate", beam_width=4)
    except litellm.exceptions.APIError as caught:
        return {"kind": type(caught).__name__, "message": str(caught)}
    except Exception as caught:
        return {"kind": type(caught).__name__, "message": str(caught)}
    raise AssertionError("beam search was not refused")


main(generate, infer, openai, error)
