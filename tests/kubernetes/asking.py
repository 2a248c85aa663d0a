"""Clients that ask without a pause, over two protocols, and keep what they were told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from triune_client import TriuneError
from triune_client.grpc import GrpcClient

PROMPT = "Once upon a time, in a land far away,"
MOST_TOKENS = 48
_TRIES, _PAUSE_S = 5, 1.0


@dataclass
class Heard:
    """What clients were told."""

    texts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # and sent again: nothing of them was begun


@contextmanager
def asking(openai: str, grpc: str, streams: int) -> Iterator[Heard]:
    """So many streams at any time, every second over gRPC, the others by OpenAI's API; they end with the block."""
    heard, over = Heard(), threading.Event()

    def ask(once: Callable[[Heard], str]) -> None:
        while not over.is_set():
            try:
                heard.texts.append(once(heard))
            except (httpx.HTTPError, TriuneError, RuntimeError) as error:
                heard.failures.append(f"{type(error).__name__}: {error}")

    with httpx.Client(base_url=openai, timeout=120, trust_env=False) as http, GrpcClient(grpc, timeout_s=120) as client:
        calls = [
            (lambda heard: over_grpc(client)) if number % 2 else (lambda heard: over_openai(http, heard))
            for number in range(streams)
        ]
        threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        try:
            yield heard
        finally:
            over.set()
            for thread in threads:
                thread.join(180)


def over_grpc(client: GrpcClient) -> str:
    """One answer, streamed; the client itself asks again when it is refused."""
    chunks = list(client.stream(PROMPT, max_tokens=MOST_TOKENS, ignore_eos=True, temperature=0))
    if chunks[-1].finish_reason != "length":
        raise RuntimeError(f"gRPC: the stream ended with {chunks[-1].finish_reason}")
    return "".join(chunk.text for chunk in chunks)


def over_openai(http: httpx.Client, heard: Heard) -> str:
    """One answer, streamed; asked again where the gateway says 503 before anything, or no connection comes about."""
    for _ in range(_TRIES):
        try:
            status, text = _openai(http)
        except httpx.ConnectError as error:
            status, text = 503, str(error)
        if status == 200:
            return text
        if status != 503:
            raise RuntimeError(f"OpenAI: {status} {text}")
        heard.refused.append(text)
        time.sleep(_PAUSE_S)
    raise RuntimeError(f"OpenAI: refused {_TRIES} times")


def _openai(http: httpx.Client) -> tuple[int, str]:
    body = {
        "model": "triune",
        "prompt": PROMPT,
        "max_tokens": MOST_TOKENS,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }
    with http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            return response.status_code, response.read().decode()
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    if lines[-1:] != ["[DONE]"]:
        raise RuntimeError(f"OpenAI: the stream ended with {lines[-1:]}")
    events = [json.loads(line) for line in lines[:-1]]
    if wrong := [event for event in events if "error" in event]:
        raise RuntimeError(f"OpenAI: {wrong}")
    reason = next(c["finish_reason"] for e in reversed(events) for c in e["choices"] if c["finish_reason"])
    if reason != "length":
        raise RuntimeError(f"OpenAI: the stream ended with {reason}")
    return 200, "".join(choice["text"] for event in events for choice in event["choices"])
