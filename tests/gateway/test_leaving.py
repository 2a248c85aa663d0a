"""A client that goes away ends its calls, whatever it asked for.

The gateway is spoken to as an ASGI server would. Run: pytest tests/gateway/test_leaving.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Ensemble, Json, answer
from triune_gateway.app import create_app
from triune_gateway.settings import Settings

PATIENCE_S = 5.0
Send = Callable[[Any], Awaitable[None]]


class Visit:
    """One request, whose connection can be closed at any time."""

    def __init__(self, path: str, body: Json) -> None:
        self.sent: list[Any] = []
        self._body = json.dumps(body).encode()
        self._read = False
        self._gone = asyncio.Event()
        headers = [(b"content-type", b"application/json")]
        self.scope = {
            "type": "http", "method": "POST", "path": f"/v1/{path}", "raw_path": b"", "query_string": b"", "headers": headers,
            "scheme": "http", "http_version": "1.1", "root_path": "", "client": None, "server": None,
            "asgi": {"version": "3.0"},
        }  # fmt: skip

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Any:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._gone.is_set():
            raise OSError("the connection is closed")
        self.sent.append(message)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def held(*texts: str) -> tuple[Ensemble, asyncio.Event]:
    """A server that says `texts` and then nothing until the event is set."""
    ensemble, gate = Ensemble(), asyncio.Event()
    ensemble.reply = lambda request: [*answer(*texts)[:-1], gate, *answer("x")]
    return ensemble, gate


async def visit_and_leave(path: str, body: Json, *texts: str) -> tuple[Ensemble, Visit, str]:
    ensemble, _ = held(*texts)
    app = create_app(Settings(), ensemble.client)
    async with app.router.lifespan_context(app):
        visit = Visit(path, body)
        serving = asyncio.ensure_future(app(visit.scope, visit.receive, visit.send))
        calls = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1
        await until(lambda: len(ensemble.requests) == calls and (len(visit.sent) > 1 or not body["stream"] or not texts))
        visit.leave()
        async with asyncio.timeout(PATIENCE_S):
            await serving
        metrics = Visit("", {})
        metrics.scope |= {"path": "/metrics", "method": "GET"}
        await app(metrics.scope, metrics.receive, metrics.send)
    return ensemble, visit, metrics.sent[1]["body"].decode()


@pytest.mark.parametrize("texts", [(), ("Hel",)], ids=["before the first piece", "after it"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "calls"),
    [("chat/completions", CHAT, 1), ("completions", COMPLETION, 1), ("completions", COMPLETION | {"prompt": ["a", "b"]}, 2)],
)
def test_leaving_ends_every_call(path: str, body: Json, calls: int, stream: bool, n: int, texts: tuple[str, ...]) -> None:
    ensemble, visit, metrics = asyncio.run(visit_and_leave(path, body | {"stream": stream, "n": n}, *texts))
    assert sorted(ensemble.cancelled) == sorted(request["id"] for request in ensemble.requests)
    assert len(ensemble.cancelled) == calls  # the choices of a prompt are one call, which ends as a whole
    assert f'triune_openai_requests_total{{endpoint="/v1/{path}",status="499"}} 1.0' in metrics
    assert f'triune_openai_open_answers{{stream="{str(stream).lower()}"}} 0.0' in metrics
    assert bool(visit.sent) == (stream and bool(texts))


def test_a_failing_prompt_ends_the_others() -> None:
    async def run() -> Ensemble:
        ensemble, _ = held("a")
        hold = ensemble.reply
        ensemble.reply = lambda request: (503, "no room") if len(ensemble.requests) == 3 else hold(request)
        app = create_app(Settings(), ensemble.client)
        async with app.router.lifespan_context(app):
            visit = Visit("completions", COMPLETION | {"prompt": ["a", "b", "c"], "n": 2})
            async with asyncio.timeout(PATIENCE_S):
                await app(visit.scope, visit.receive, visit.send)
        assert visit.sent[0]["status"] == 503
        return ensemble

    ensemble = asyncio.run(run())
    assert {request["id"] for request in ensemble.requests[:2]} <= set(ensemble.cancelled)


def test_an_answer_that_is_whole_cancels_nothing() -> None:
    async def run() -> Ensemble:
        ensemble = Ensemble()
        app = create_app(Settings(), ensemble.client)
        async with app.router.lifespan_context(app):
            for stream in (True, False):
                visit = Visit("chat/completions", CHAT | {"n": 2, "stream": stream})
                await app(visit.scope, visit.receive, visit.send)
                assert not visit.sent[-1].get("more_body")
        return ensemble

    assert asyncio.run(run()).cancelled == []
