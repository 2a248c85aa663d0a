"""A gateway that is told to stop: what comes is refused, what is under way ends. Run: pytest tests/gateway/test_draining.py"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from fakes.ensemble import CHAT, COMPLETION, Ensemble, Gateway, answer, piece
from support.real_server import free_port
from triune_gateway.app import create_app
from triune_gateway.running import Server
from triune_gateway.settings import Settings

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


class Running:
    """A gateway on a port and a thread of its own, whose answers wait for `let_go`."""

    def __init__(self, ensemble: Ensemble, drain_s: float) -> None:
        self.let_go = asyncio.Event()
        first, *rest = answer("Hel", "lo")
        ensemble.reply = lambda request: [first, self.let_go, *rest]
        app = create_app(Settings(), ensemble.client)
        self.port, self.intake = free_port(), app.state.serving.intake
        config = uvicorn.Config(app, port=self.port, log_level="warning", timeout_graceful_shutdown=3)
        self.server = Server(config, self.intake, drain_s)
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=lambda: self._loop.run_until_complete(self.server.serve()))
        self.thread.start()
        wait_until(lambda: self.server.started)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def told_to_stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    def finish(self) -> None:
        self._loop.call_soon_threadsafe(self.let_go.set)


@contextmanager
def running(ensemble: Ensemble, drain_s: float) -> Iterator[Running]:
    gateway = Running(ensemble, drain_s)
    try:
        yield gateway
    finally:
        gateway.finish()
        gateway.server.handle_exit(signal.SIGINT, None)
        gateway.thread.join(PATIENCE_S)
        assert not gateway.thread.is_alive()


def asked(gateway: Running, stream: bool) -> tuple[threading.Thread, list[httpx.Response]]:
    """A request that is under way."""
    got: list[httpx.Response] = []
    body = CHAT | {"stream": stream}
    thread = threading.Thread(target=lambda: got.append(httpx.post(gateway.url("/v1/chat/completions"), json=body, timeout=60)))
    thread.start()
    wait_until(lambda: gateway.intake.open == 1)
    return thread, got


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_under_way_ends_and_what_comes_is_refused(ensemble: Ensemble, stream: bool) -> None:
    with running(ensemble, drain_s=60) as gateway:
        thread, got = asked(gateway, stream)
        gateway.told_to_stop()
        refused = httpx.post(gateway.url("/v1/completions"), json=COMPLETION)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["connection"] == "close"
        assert httpx.get(gateway.url("/health")).status_code == 503
        assert httpx.get(gateway.url("/health/live")).status_code == 200
        gateway.finish()
        thread.join(PATIENCE_S)
        gateway.thread.join(PATIENCE_S)
        assert not gateway.thread.is_alive(), "it goes on though nothing is under way"
    assert got[0].status_code == 200
    assert '"finish_reason":"stop"' in got[0].text and (not stream or got[0].text.endswith("data: [DONE]\n\n"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_end_in_time_gets_an_error(ensemble: Ensemble, stream: bool) -> None:
    with running(ensemble, drain_s=0.3) as gateway:
        thread, got = asked(gateway, stream)
        gateway.told_to_stop()
        thread.join(PATIENCE_S)
        gateway.thread.join(PATIENCE_S)
        assert not gateway.thread.is_alive()
    if not stream:
        assert (got[0].status_code, got[0].headers["retry-after"]) == (503, "1")
        assert got[0].json()["error"]["code"] == "overloaded"
    else:
        *_, last, done = [line.removeprefix("data: ") for line in got[0].text.split("\n\n") if line]
        assert json.loads(last)["error"]["message"].startswith("The server is stopping")
        assert done == "[DONE]"


def test_asked_twice_it_stops_at_once(ensemble: Ensemble) -> None:
    with running(ensemble, drain_s=600) as gateway:
        thread, got = asked(gateway, stream=True)
        gateway.told_to_stop()
        gateway.told_to_stop()
        thread.join(PATIENCE_S)
        assert "The server is stopping" in got[0].text


def test_the_process_ends_with_code_0_on_sigterm() -> None:
    port = free_port()
    command = [sys.executable, "-m", "triune_gateway", f"--port={port}", "--grpc-url=127.0.0.1:1", "--drain-s=5"]
    process = subprocess.Popen(command, env={"PYTHONPATH": ":".join(sys.path)})

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_while_the_draining_file_is_there_nothing_is_taken(start: Callable[..., Gateway], tmp_path: Path) -> None:
    file = tmp_path / "draining"
    gateway = start(draining_file=file)
    assert gateway.chat()["choices"]
    file.touch()
    assert gateway.error("completions", COMPLETION, 503)["code"] == "overloaded"
    assert gateway.http.get("/health").json() == {"status": "stopping"}
    file.unlink()
    assert gateway.complete()["choices"] and gateway.http.get("/health").status_code == 200


def test_while_the_stalled_file_is_there_it_is_not_ready_but_serves(start: Callable[..., Gateway], tmp_path: Path) -> None:
    file = tmp_path / "stalled"
    gateway = start(stalled_file=file)
    assert gateway.http.get("/health/ready").json() == {"status": "ready"}
    file.touch()
    answer = gateway.http.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
    assert gateway.http.get("/health/live").status_code == 200 and gateway.complete()["choices"]


def test_deep_health_is_a_token_of_the_server_and_asked_for_once_a_second(gateway: Gateway, ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: [piece("x", "length")]
    found = [gateway.http.get("/health/deep") for _ in range(5)]
    assert [one.json() for one in found] == [{"status": "ready"}] * 5
    assert len(ensemble.requests) < 5 and ensemble.requests[0]["max_tokens"] == 1


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [("overloaded", 200, "full"), ("stopping", 503, "not ready"), ("engine_failed", 503, "not ready")],
)
def test_deep_health_tells_a_full_server_from_a_broken_one(
    gateway: Gateway, ensemble: Ensemble, code: str, status: int, said: str
) -> None:
    ensemble.reply = lambda request: (503, f"UNAVAILABLE [{code}]: no")
    found = gateway.http.get("/health/deep")
    assert (found.status_code, found.json()) == (status, {"status": said})
