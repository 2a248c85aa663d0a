"""LiteLLM's proxy in front of the server, and what its clients get: chats, responses and messages, whole and streamed."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from common import ADDRESSES, QUESTION, main
from openai import APIStatusError, OpenAI

CHAT: Any = {"model": "triune", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
KEY = f"sk-{secrets.token_hex(32)}"  # without one of its own the proxy does not start
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}]


@contextmanager
def proxy() -> Iterator[str]:
    """Its address, while it runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = {"model": "openai/triune", "api_base": ADDRESSES["OPENAI"], "api_key": "none"}
    config = {"model_list": [{"model_name": "triune", "litellm_params": served}], "general_settings": {"master_key": KEY}}
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "config.yaml", Path(folder) / "log"
        path.write_text(json.dumps(config), "utf-8")  # JSON is YAML
        command = [Path(sys.executable).parent / "litellm", "--config", path, "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as out:
            process = subprocess.Popen([*command, "--telemetry", "False"], stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        try:
            _wait(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        except BaseException:
            print(log.read_text("utf-8")[-3000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(20)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, patience_s: float = 150) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"the proxy does not answer: {log.read_text('utf-8')[-2000:]}")


def proxied() -> dict[str, Any]:
    with proxy() as url:
        client = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        return {
            "models": [model.id for model in client.models.list()],
            "chat": _chat(client),
            "responses": _responses(client),
            "tools": _tools(client),
            "messages": _messages(url),
            "error": _error(client),
        }


def _chat(client: OpenAI) -> dict[str, Any]:
    whole = client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
    return {
        "whole": whole.choices[0].message.content,
        "streamed": "".join(pieces),
        "usage": [whole.usage.total_tokens, usage.total_tokens],
    }


def _responses(client: OpenAI) -> dict[str, Any]:
    ask: Any = {"model": "triune", "input": QUESTION, "temperature": 0}
    whole = client.responses.create(**ask)
    with client.responses.stream(**ask) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    more = client.responses.create(**ask | {"input": "And of Spain?"}, previous_response_id=whole.id)
    return {"whole": whole.output_text, "streamed": "".join(pieces), "final": final.output_text, "more": more.output_text}


def _tools(client: OpenAI) -> dict[str, Any]:
    ask: Any = CHAT | {"tools": TOOLS, "tool_choice": "required", "max_tokens": 100}
    (call, *_) = client.chat.completions.create(**ask).choices[0].message.tool_calls or ()
    return {"name": call.function.name, "arguments": call.function.arguments}


def _messages(url: str) -> str:
    """Anthropic's protocol, which the proxy translates."""
    body = {"model": "triune", "max_tokens": 50, "messages": CHAT["messages"], "temperature": 0}
    answer = httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=60).raise_for_status().json()
    return "".join(block.get("text", "") for block in answer["content"])


def _error(client: OpenAI) -> dict[str, Any]:
    try:
        client.chat.completions.create(**CHAT | {"temperature": 9})
    except APIStatusError as error:
        return {"status": error.status_code, "message": str(error)}
    raise AssertionError("a temperature of 9 was not refused")


main(proxied)
