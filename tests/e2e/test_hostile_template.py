"""A template that takes for ever costs its own chat an answer, and nobody else theirs.

Run: pytest tests/e2e/test_hostile_template.py
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.real_server import REPOSITORY, RealServer, start, stop

pytestmark = pytest.mark.triton

HOSTILE = "{% if messages[0].content == 'hostile' %}{{ 10 ** (10 ** 9 * messages|length) }}{% endif %}"  # one operation of C's
ENGINE = Path("generate", "1", "engine.json")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server whose model has a template with a trap."""
    folder = tmp_path_factory.mktemp("hostile")
    repository = folder / "repository"
    shutil.copytree(REPOSITORY, repository, copy_function=lambda source, target: Path(target).symlink_to(source))
    manifest = json.loads((REPOSITORY / ENGINE).read_text("utf-8"))
    manifest["chat_template"] = HOSTILE + manifest["chat_template"]
    (repository / ENGINE).unlink()
    (repository / ENGINE).write_text(json.dumps(manifest), "utf-8")
    running = start(folder, repository)
    yield running
    stop(running)


def ask(server: RealServer, content: str, **more: object) -> httpx.Response:
    body = {"model": "triune", "messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0, **more}
    return httpx.post(f"{server.options.openai_url}/v1/chat/completions", json=body, timeout=60)


def test_a_chat_whose_template_takes_for_ever_is_refused_and_others_are_served(hostile: RealServer) -> None:
    expected = ask(hostile, "friendly").json()["choices"]
    (tokenize,) = hostile.stubs("tokenize")
    streamed: list[str] = []
    begun = threading.Event()

    def stream() -> None:
        body = {"model": "triune", "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{hostile.options.openai_url}/v1/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                streamed.append(line)
                begun.set()

    reading = threading.Thread(target=stream)
    reading.start()
    assert begun.wait(30)
    before = len(streamed)
    refused = ask(hostile, "hostile")
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "messages")
    assert "the model's chat template takes more than 2 s for these messages" in error["message"]
    assert len(streamed) > before, "a stream stood still meanwhile"
    assert ask(hostile, "friendly").json()["choices"] == expected
    reading.join(60)
    assert "[DONE]" in streamed[-2:][0] + streamed[-1]
    assert hostile.stubs("tokenize") == [tokenize], "the process that makes tokens was not to be restarted"
