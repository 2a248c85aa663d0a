"""The chat page in a real browser: it sends, streams, thinks, stops, and breaks no rule of its own policy or of accessibility.

Run: make test-page, which sets up what it needs; screenshots go to the folder that TRIUNE_BROWSER_SHOTS names.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from fakes.ensemble import Ensemble, Json, piece
from support.browser import needs_a_browser, visit
from support.real_server import free_port
from triune_client import AsyncClient
from triune_gateway.app import create_app
from triune_gateway.settings import Settings

pytestmark = needs_a_browser

NAMES = ("empty", "answered", "editing", "history")
THOUGHTS = "Let me think. First, this. Then, that."
ANSWER = "**Here**:\n```python\nprint('<b>hi</b>')\n```\n<script>alert(1)</script> done."


class _Paced(httpx.AsyncByteStream):
    """Pieces with pauses between them, as of a model."""

    def __init__(self, pieces: list[Json], pause_s: float) -> None:
        self._pieces, self._pause_s = pieces, pause_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for one in self._pieces:
            await asyncio.sleep(self._pause_s)
            yield b"data: " + json.dumps(one).encode() + b"\n\n"


class Model(Ensemble):
    """Does what the last message says: think, go on slowly, or refuse."""

    def client(self) -> AsyncClient:
        return AsyncClient("http://server", transport=httpx.MockTransport(self._answer), max_retries=0)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or b"{}")
        if "messages" not in body:
            return await self._handle(request)
        word = json.loads(body["messages"])[-1]["content"]
        if word == "refuse":
            return httpx.Response(503, json={"error": "no room"})
        if word == "slow":
            return httpx.Response(200, stream=_Paced([piece("word ") for _ in range(1000)], 0.02))
        thoughts = [piece(reasoning_output=f"{word} ", num_reasoning_tokens=1) for word in THOUGHTS.split()]
        texts = [piece(ANSWER[at : at + 4]) for at in range(0, len(ANSWER), 4)]
        return httpx.Response(200, stream=_Paced([*thoughts, *texts, piece("", "stop")], 0.03))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    app = create_app(Settings(aliases=("r1-nano",)), Model().client)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def seen(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a visit saw."""
    return visit("page.mjs", url, tmp_path_factory.mktemp("shots"))


def test_thinking_is_shown_while_it_lasts_and_folded_after(seen: dict[str, Any]) -> None:
    assert seen["thoughts"] == [THOUGHTS]
    assert seen["thinkingOpen"] is False
    assert seen["thinkingOpenedByKey"] is True


def test_the_answer_is_text_and_blocks_of_code(seen: dict[str, Any]) -> None:
    assert seen["strong"] == ["Here"]
    assert seen["answer"] == ["Here:", "<script>alert(1)</script> done."]
    assert seen["code"] == ["print('<b>hi</b>')"]
    assert seen["scripts"] == 0


def test_the_rate_and_the_end_are_told(seen: dict[str, Any]) -> None:
    assert "tokens/s" in seen["note"][0]
    assert "tokens" in seen["rateWhileRunning"]
    assert seen["status"][0].startswith("Answer complete: **Here**:")
    assert seen["waiting"] == 0


def test_the_keyboard_is_enough(seen: dict[str, Any]) -> None:
    assert seen["focused"] == "prompt"
    assert seen["stopShown"] is True
    assert seen["stopped"].startswith("Stopped.")


def test_a_refusal_is_shown_and_what_was_asked_is_kept(seen: dict[str, Any]) -> None:
    assert "no room" in seen["error"][0]
    assert seen["kept"] == "refuse"


def test_a_new_chat_is_empty(seen: dict[str, Any]) -> None:
    assert seen["turnsAfterNew"] == 0


def test_a_conversation_survives_a_reload_in_this_browser_alone(seen: dict[str, Any]) -> None:
    assert seen["keptAnswers"][:2] == ["Here:", "<script>alert(1)</script> done."]
    assert seen["keptThoughts"][0] == THOUGHTS
    assert seen["keptSystem"] == "Be brief."
    assert seen["chats"] == ["think again"]
    assert seen["opened"] == ["think again"]


def test_an_answer_is_made_anew_and_a_question_changed_in_place(seen: dict[str, Any]) -> None:
    assert seen["afterRegenerate"] == 2
    assert seen["editFocused"] == "think"
    assert seen["editCancelled"] == 0
    assert seen["afterEdit"] == ["think again"]


def test_a_deleted_conversation_is_gone(seen: dict[str, Any]) -> None:
    assert seen["historyShown"] is False
    assert seen["stored"] == "[]"


def test_code_has_colours_and_is_the_same_text(seen: dict[str, Any]) -> None:
    assert seen["strings"] == ["'<b>hi</b>'"]


def test_nothing_is_asked_of_others_and_the_console_is_quiet(seen: dict[str, Any]) -> None:
    assert seen["elsewhere"] == []
    assert [problem for problem in seen["problems"] if "503" not in problem] == []  # the refusal that was asked for


def test_an_answer_can_be_copied_and_an_example_asked(seen: dict[str, Any]) -> None:
    assert seen["copied"] in ("Copied", "Selected, to be copied by hand")  # as the browser allows
    assert seen["example"] == ["What is 17 * 4 + 9?"]


def test_no_rule_of_accessibility_is_broken_in_any_look(seen: dict[str, Any]) -> None:
    looks = {f"{name}-{scheme}-{size}" for name in NAMES for scheme in ("light", "dark") for size in ("narrow", "wide")}
    assert set(seen["violations"]) == looks
    assert not any(seen["violations"].values()), seen["violations"]
    assert max(seen["overflow"].values()) <= 0, "the page is wider than its window"
