"""Clients that do what a crowd of polite ones does not: leave early, want a form, ask for nonsense, or for several answers."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from triune_client import TriuneError
from triune_client.grpc import GrpcClient

from ..chaos.answers import ANSWERED, ERROR, HUNG, REFUSED, WRONG, Addresses, Outcome, events, post

_PATIENCE_S = 30.0
_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
_NONSENSE: tuple[dict[str, object], ...] = ({"max_tokens": -1}, {"temperature": 99}, {"messages": []}, {"model": "nobody"})
_SAID = [{"role": "user", "content": "What is 12 + 30?"}]


def leave_http(where: Addresses, chance: random.Random) -> str:
    """A stream over HTTP whose client leaves in the middle."""
    body = {"text_input": "What is 3 * 4?", "max_tokens": 120, "ignore_eos": True, "stream": True}
    stream = events(f"{where.http}/v2/models/triune/generate_stream", body, _PATIENCE_S)
    for _ in range(chance.randint(1, 6)):
        next(stream, None)
    stream.close()  # type: ignore[attr-defined]
    return ""


def leave_grpc(where: Addresses, chance: random.Random) -> str:
    """A stream over gRPC whose client leaves in the middle."""
    with (
        GrpcClient(where.grpc, timeout_s=_PATIENCE_S, max_retries=0) as client,
        client.stream("What is 3 * 4?", max_tokens=120, ignore_eos=True) as chunks,
    ):
        for _ in range(chance.randint(1, 6)):
            next(chunks, None)
    return ""


def want_form(where: Addresses, chance: random.Random) -> str:
    """An answer that is held to a schema, and is to be valid."""
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA, "strict": True}}
    found = _chat(where, {"response_format": form, "max_tokens": 300, "seed": chance.randint(0, 99)})
    choice = found["choices"][0]
    if choice["finish_reason"] != "stop":
        return ""
    value = json.loads(choice["message"]["content"])
    return "" if isinstance(value["a"], int) and value["b"] in ("x", "y") else f"{value} is not of the schema"


def want_several(where: Addresses, chance: random.Random) -> str:
    """Two answers of one request."""
    found = _chat(where, {"n": 2, "max_tokens": 20, "ignore_eos": True, "seed": chance.randint(0, 99)})
    used = found["usage"]["completion_tokens"]
    return "" if len(found["choices"]) == 2 and used == 40 else f"{len(found['choices'])} answers of {used} tokens"


def ask_nonsense(where: Addresses, chance: random.Random) -> str:
    """A request that is to be refused by name."""
    bad = chance.choice(_NONSENSE)
    reply = post(f"{where.openai}/v1/chat/completions", {"model": "triune", "messages": _SAID, **bad}, _PATIENCE_S)
    return "" if reply.status_code in (400, 404, 422) else f"{bad} is answered with {reply.status_code}"


KINDS: Mapping[str, Callable[[Addresses, random.Random], str]] = {
    one.__name__: one for one in (leave_http, leave_grpc, want_form, want_several, ask_nonsense)
}


def visit(where: Addresses, kind: str, chance: random.Random) -> Outcome:
    """One visit, and what became of it; never raises."""
    began = time.monotonic()
    try:
        wrong = KINDS[kind](where, chance)
        found = (WRONG, wrong) if wrong else (ANSWERED, "")
    except httpx.TimeoutException as error:
        found = (HUNG, str(error))
    except (httpx.HTTPError, TriuneError, ValueError, LookupError) as error:
        found = (REFUSED if "503" in str(error) or "overloaded" in str(error) else ERROR, repr(error))
    return Outcome(found[0], kind, found[1][:300], round(time.monotonic() - began, 3))


class Visitors:
    """Threads of visits for as long as a `with` block."""

    def __init__(self, where: Addresses, size: int = 2, pause_s: float = 0.2) -> None:
        self._where, self._pause_s = where, pause_s
        self._over, self._lock = threading.Event(), threading.Lock()
        self._outcomes: list[Outcome] = []
        self._threads = [threading.Thread(target=self._work, args=(random.Random(n),), daemon=True) for n in range(size)]

    def take(self) -> list[Outcome]:
        """What has come since this was last asked."""
        with self._lock:
            taken, self._outcomes = self._outcomes, []
        return taken

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(3 * _PATIENCE_S)

    def _work(self, chance: random.Random) -> None:
        while not self._over.is_set():
            outcome = visit(self._where, chance.choice(sorted(KINDS)), chance)
            with self._lock:
                self._outcomes.append(outcome)
            self._over.wait(self._pause_s)


def _chat(where: Addresses, more: Mapping[str, Any]) -> dict[str, Any]:
    reply = post(f"{where.openai}/v1/chat/completions", {"model": "triune", "messages": _SAID, **more}, _PATIENCE_S)
    if reply.status_code != 200:
        raise httpx.HTTPError(f"{reply.status_code}: {reply.text[:200]}")
    found: dict[str, Any] = reply.json()
    return found
