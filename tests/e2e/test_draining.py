"""SIGTERM under load: nothing is cut off without a word. Run: pytest tests/e2e/test_draining.py

The rolling update takes a minute: pytest -m slow tests/e2e/test_draining.py
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.real_server import REPOSITORY, RealServer, start, stop
from triune_client import Client, Overloaded, TriuneError
from triune_client.grpc import GrpcClient

pytestmark = pytest.mark.triton
ENDED = ("length", "cancelled")
LONG = {"max_tokens": 120, "ignore_eos": True}


def streamed(server: RealServer) -> str:
    """The finish reason of a stream over HTTP, or the code of its error."""
    with Client(server.url, max_retries=0) as client:
        return last_reason(client)


def over_grpc(server: RealServer) -> str:
    with GrpcClient(server.options.grpc_url, max_retries=0) as client:
        return last_reason(client)


def last_reason(client: Client | GrpcClient) -> str:
    reason = None
    try:
        for chunk in client.stream("Once upon a time", **LONG):
            reason = chunk.finish_reason
    except TriuneError as error:
        return error.code or repr(error)
    return str(reason)


def of_openai(server: RealServer) -> str:
    body = {"model": "triune", "prompt": "Once upon a time", "stream": True, **LONG}
    got = httpx.post(f"{server.options.openai_url}/v1/completions", json=body, timeout=120)
    events = [json.loads(line[6:]) for line in got.text.split("\n\n") if line.startswith("data: {")]
    if got.status_code != 200 or "error" in (events or [{}])[-1]:
        return str((events[-1] if events else got.json())["error"]["code"])
    assert got.text.endswith("data: [DONE]\n\n")
    return str(events[-1]["choices"][0]["finish_reason"])


def health(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "triune_server.entry", "health", f"--run-folder={folder}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr, done
    return done.returncode, done.stdout


def in_background(call: Callable[[RealServer], str], server: RealServer, said: list[str]) -> threading.Thread:
    thread = threading.Thread(target=lambda: said.append(call(server)))
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("drain_s", "expected"), [(90, {"length"}), (0, {"cancelled", "interrupted", "stopping", "overloaded"})]
)
def test_sigterm_under_load_cuts_nothing_without_a_word(tmp_path: Path, drain_s: int, expected: set[str]) -> None:
    server = start(tmp_path, REPOSITORY, f"--drain-s={drain_s}")
    try:
        for depth in ("--live", "--ready", "--deep"):
            assert health(tmp_path, depth)[0] == 0
        said: list[str] = []
        threads = [in_background(call, server, said) for call in (streamed, over_grpc, of_openai) for _ in range(2)]
        time.sleep(1.5)
        server.process.send_signal(signal.SIGTERM)
        if drain_s:
            end = time.monotonic() + 5
            while health(tmp_path)[0] == 0:
                assert time.monotonic() < end
            assert health(tmp_path, "--live")[0] == 0
            assert streamed(server) == "stopping" and over_grpc(server) == "stopping" and of_openai(server) == "overloaded"
        for thread in threads:
            thread.join(drain_s + 30)
            assert not thread.is_alive()
        assert len(said) == 6 and set(said) <= expected, said
        assert server.process.wait(drain_s + 15) == 0
        assert health(tmp_path)[0] == 1
    finally:
        if server.process.poll() is None:
            stop(server)


class Balancer:
    """Sends a request to a replica that is ready, and again to another only if it was refused."""

    def __init__(self, replicas: list[RealServer]) -> None:
        self.replicas = replicas
        self.refused = 0

    def text(self) -> str:
        for attempt in range(200):
            server = self.replicas[attempt % len(self.replicas)]
            if not self._is_ready(server):
                time.sleep(0.05)
                continue
            try:
                with GrpcClient(server.options.grpc_url, max_retries=0) as client:
                    stream = client.stream("Once upon a time", max_tokens=24, ignore_eos=True)
                    text = "".join(chunk.text for chunk in stream)
                    assert stream.completion.finish_reason == "length", "an answer was cut short"
                    return text
            except Overloaded:
                self.refused += 1
        raise AssertionError("no replica took the request")

    def _is_ready(self, server: RealServer) -> bool:
        try:
            return httpx.get(f"{server.options.openai_url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.mark.slow
def test_a_rolling_update_of_two_replicas_loses_no_request(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    balancer = Balancer([start(folder) for folder in folders[:2]])
    texts: list[str] = []
    failures: list[BaseException] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                texts.append(balancer.text())
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=client) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        time.sleep(3)
        for number, folder in enumerate(folders[2:]):
            new = start(folder)
            old, balancer.replicas[number] = balancer.replicas[number], new
            old.process.send_signal(signal.SIGTERM)
            assert old.process.wait(45) == 0
        time.sleep(2)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
        for server in balancer.replicas:
            stop(server)
    assert not failures, failures
    assert len(texts) > 20 and len(set(texts)) == 1, "greedy answers are equal to the byte, whoever made them"
