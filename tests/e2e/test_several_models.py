"""Two models served side by side under load, one switched out and in. Run: pytest tests/e2e/test_several_models.py"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.repository import fake_repository
from support.real_server import RealServer, start, stop
from triune_runtime.manifest import EngineManifest, Limits

pytestmark = pytest.mark.triton
_LONG = 3_000  # tokens: more than are made before a removal has begun
PROMPT = "the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def several(folder: Path) -> Iterator[RealServer]:
    """A server of one model, with a repository of another beside it."""
    server = start(folder, fake_repository(folder / "first"))
    other = fake_repository(folder / "other", Limits(max_length=64)) / "generate" / "1"
    dataclasses.replace(EngineManifest.load(other), model="other").save(other)
    yield server
    stop(server)


def triune(folder: Path, *arguments: object, exit_code: int = 0) -> str:
    command = [sys.executable, "-m", "triune_server", *map(str, arguments), f"--run-folder={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == exit_code, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def listed(server: RealServer) -> list[str]:
    return [one["id"] for one in httpx.get(f"{server.options.openai_url}/v1/models", timeout=10).json()["data"]]


def complete(server: RealServer, model: str, **more: object) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0.0, **more}
    return httpx.post(f"{server.options.openai_url}/v1/completions", json=body, timeout=60)


class Load:
    """Requests to one model, one after the other, on threads of their own, over two protocols."""

    def __init__(self, server: RealServer, model: str, ensemble: str) -> None:
        self._server, self._model, self._ensemble = server, model, ensemble
        self._stopping = threading.Event()
        self.wrong: list[str] = []
        self.answers = 0
        self._threads = [threading.Thread(target=ask) for ask in (self._openai, self._openai, self._kserve, self._kserve)]

    def _openai(self) -> None:
        while not self._stopping.is_set():
            self._see(complete(self._server, self._model))

    def _kserve(self) -> None:
        while not self._stopping.is_set():
            self._see(self._server.generate(self._ensemble, text_input=PROMPT, max_tokens=8))

    def _see(self, response: httpx.Response) -> None:
        self.answers += 1
        if response.status_code != 200 or "finish_reason" not in response.text:
            self.wrong.append(response.text)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def test_one_is_added_and_removed_under_load_and_the_other_never_fails(several: RealServer, folder: Path) -> None:
    alone = complete(several, "triune").json()["choices"][0]["text"]
    with Load(several, "triune", "triune") as load:
        assert "other is served" in triune(folder, "add", f"--repository={folder / 'other'}")
        assert listed(several)[-1] == "other"
        with Load(several, "other", "other") as both:
            time.sleep(1.0)
        assert both.answers and not both.wrong
        assert complete(several, "other", max_tokens=100).status_code == 400, "it has its own limits"
        assert complete(several, "triune", max_tokens=100).status_code == 200
        assert httpx.get(f"{several.url}/v2/health/ready", timeout=10).status_code == 200
        triune(folder, "remove", "other")
        assert "other" not in listed(several)
        assert complete(several, "other").status_code == 404
        assert several.generate("other", text_input=PROMPT).status_code in (400, 404)
    assert load.answers > 20 and not load.wrong
    assert complete(several, "triune").json()["choices"][0]["text"] == alone


def test_what_a_model_was_asked_is_answered_before_it_goes(several: RealServer, folder: Path) -> None:
    long_winded = fake_repository(folder / "long", Limits(max_length=_LONG + 100))
    triune(folder, "add", f"--repository={long_winded}", "--name=other")  # a name that there was before
    answers: list[httpx.Response] = []
    long = [
        threading.Thread(target=lambda: answers.append(complete(several, "other", max_tokens=_LONG, ignore_eos=True)))
        for _ in range(4)
    ]
    for thread in long:
        thread.start()
    time.sleep(0.5)
    assert not answers
    triune(folder, "remove", "other")
    for thread in long:
        thread.join()
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [_LONG] * 4


def test_one_that_was_there_from_the_start_goes_and_nothing_is_started_again(folder: Path, tmp_path: Path) -> None:
    also = f"--also=other={folder / 'other'}"
    server = start(tmp_path, folder / "first", also)
    try:
        assert complete(server, "other").status_code == 200
        with Load(server, "triune", "triune") as load:
            triune(tmp_path, "remove", "other")
            time.sleep(1.5)  # longer than whoever watches needs to see that processes have ended
        assert load.answers and not load.wrong
        assert "starting the server again" not in server.log.read_text()
        server.stubs("generate")[0].kill()
        wait_until_restarted(server)
        assert complete(server, "triune").status_code == 200
        assert complete(server, "other").status_code == 404
    finally:
        stop(server)


def wait_until_restarted(server: RealServer) -> None:
    end = time.monotonic() + 60
    while server.log.read_text().count(server.options.http_url + "/v2/models/triune/generate -d") < 2:
        assert time.monotonic() < end, server.log.read_text()[-2000:]
        time.sleep(0.1)


def test_what_cannot_be_added_or_removed_is_one_sentence(several: RealServer, folder: Path) -> None:
    first = next(name for name in listed(several) if name != "triune")
    assert "no model repository" in triune(folder, "add", "--repository=nowhere", exit_code=1)
    assert "cannot be the name" in triune(folder, "add", f"--repository={folder / 'other'}", "--name=a b", exit_code=1)
    assert "served already" in triune(folder, "add", f"--repository={folder / 'other'}", f"--name={first}", exit_code=1)
    assert "not being served" in triune(folder, "remove", "nobody", exit_code=1)
    assert "started with" in triune(folder, "remove", first, exit_code=1)
    broken = fake_repository(folder / "broken")
    (broken / "generate" / "1" / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in triune(folder, "add", f"--repository={broken}", "--name=broken", exit_code=1)
    assert "broken" not in listed(several)
    assert complete(several, "triune").status_code == 200
