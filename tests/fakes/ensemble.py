"""A gateway over a stand-in for the server: the client library's own HTTP transport, answering from a script."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from starlette.testclient import TestClient

from triune_client import AsyncClient
from triune_gateway.app import create_app
from triune_gateway.settings import Settings

Json = dict[str, Any]
# The pieces of an answer to a request, or an error's status and text. A piece may be an asyncio.Event to wait for, or bytes as
# they are to come, which may be part of an event.
Piece = Json | asyncio.Event | bytes
Reply = Callable[[Json], list[Piece] | tuple[int, str]]

CHAT = {"model": "triune", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": "triune", "prompt": "Once"}


def piece(text: str = "", reason: str = "", **more: Any) -> Json:
    """An event of `generate_stream`: one token, of a prompt of five."""
    return {"text_output": text, "finish_reason": reason, "num_output_tokens": 1, **more}


def answer(*texts: str, reason: str = "stop") -> list[Json]:
    """An answer of these pieces, after a prompt of five tokens."""
    pieces = [piece(text) for text in texts] + [piece("", reason)]
    pieces[0]["num_input_tokens"] = 5
    return pieces


def bytes_as_tokens(request: Json) -> httpx.Response:
    """The tokenizer's answer: a token a byte, and 0 in front of a text, which is special and has none."""
    ids = request.get("prompt_token_ids") or [0, *(request.get("text_input") or request["messages"]).encode()]
    shown = bytes(one for one in ids if one).decode("utf-8", "replace")
    outputs = {"input_ids": ids, "tokens": [f"<{one}>" for one in ids], "shown_text": shown}
    return httpx.Response(200, json=outputs | {"text": "<s>" * ids.count(0) + shown, "max_length": 128})


class Ensemble:
    """The stand-in: what it was asked, and what it says."""

    def __init__(self) -> None:
        self.reply: Reply = lambda request: answer("Hel", "lo")
        self.requests: list[Json] = []
        self.asked: list[str] = []  # which model, of each of these
        self.headers: list[httpx.Headers] = []  # of each of these
        self.cancelled: list[str] = []
        self.tokenized: list[Json] = []  # what its tokenizer was asked
        self.tokens: Callable[[Json], httpx.Response] = bytes_as_tokens
        self.ready = True

    def client(self) -> AsyncClient:
        return AsyncClient("http://server", transport=httpx.MockTransport(self._handle), max_retries=0)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        if not request.content:
            return httpx.Response(200 if self.ready else 400)
        body = json.loads(request.content)
        if body.get("cancel"):
            self.cancelled.append(body["id"])
            return httpx.Response(200, json={"finish_reason": "cancelled"})
        if request.url.path.startswith("/v2/models/tokenize/"):
            self.tokenized.append(body)
            return self.tokens(body)
        self.requests.append(body)
        self.headers.append(request.headers)
        self.asked.append(request.url.path.split("/")[3])
        replies = [self.reply(one) for one in _sequences(body)]
        for reply in replies:
            if isinstance(reply, tuple):
                return httpx.Response(reply[0], json={"error": reply[1]})
        return httpx.Response(200, stream=_Events(_together([reply for reply in replies if isinstance(reply, list)])))


def _sequences(body: Json) -> list[Json]:
    """A request for `n` answers as requests for one: their seeds are the given one plus multiples of 2^64 / golden ratio."""
    n = body.get("n", 1)
    seeds = [(body["seed"] + number * 0x9E3779B97F4A7C15) % 2**64 if "seed" in body else None for number in range(n)]
    one = {name: value for name, value in body.items() if name != "n"}
    return [one | ({} if seed is None else {"seed": seed}) for seed in seeds]


def _together(replies: list[list[Piece]]) -> list[Piece]:
    """The pieces of several answers in turn, each with its number; the prompt is counted in the first answer only."""
    if len(replies) == 1:
        return replies[0]
    found: list[Piece] = []
    for row in itertools.zip_longest(*replies):
        for number, one in enumerate(row):
            uncounted = {"num_input_tokens": 0} if number else {}
            found += [one | {"sequence_index": number} | uncounted if isinstance(one, dict) else one] if one is not None else []
    return found


class _Events(httpx.AsyncByteStream):
    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for one in self._pieces:
            if isinstance(one, asyncio.Event):
                await one.wait()
            elif isinstance(one, bytes):
                yield one
            else:
                yield b"data: " + json.dumps(one).encode() + b"\n\n"


class Gateway:
    """A gateway and a client of it."""

    def __init__(self, ensemble: Ensemble, settings: Settings) -> None:
        self.ensemble = ensemble
        self.app = create_app(settings, ensemble.client)
        self.http = TestClient(self.app, base_url="http://localhost", raise_server_exceptions=False)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Posts JSON in ASCII, which can carry what UTF-8 cannot."""
        return self.http.post(f"/v1/{path}", content=json.dumps(body), headers={"content-type": "application/json"} | headers)

    def chat(self, **body: Any) -> Json:
        return self._whole("chat/completions", CHAT | body)

    def complete(self, **body: Any) -> Json:
        return self._whole("completions", COMPLETION | body)

    def _whole(self, path: str, body: Json) -> Json:
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def events(self, path: str, body: Json) -> list[Json]:
        """The events of a stream, which ends in [DONE]."""
        response = self.post(path, body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert data.pop() == "[DONE]"
        return [json.loads(one) for one in data]

    def error(self, path: str, body: Any, status: int, **headers: str) -> Json:
        """The error that a request gets, which has OpenAI's shape."""
        response = self.post(path, body, **headers)
        assert response.status_code == status, response.text
        return error_of(response)


def error_of(response: httpx.Response) -> Json:
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    return error
