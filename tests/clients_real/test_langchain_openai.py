"""LangChain's OpenAI package. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "langchain-openai"


def test_a_chat_is_the_same_whole_streamed_and_in_a_batch(run: Run) -> None:
    found = run("chat")
    assert "Paris" in found["text"] and found["streamed"] == found["text"] == found["batch"][0]
    assert found["reason"] == "stop" and found["tokens"] > 0 and len(found["batch"]) == 2


def test_a_completion_is_the_same_whole_and_streamed(run: Run) -> None:
    found = run("completion")
    assert found["text"].startswith(" Paris") and found["streamed"] == found["text"]


def test_a_response_is_a_chats_answer_whole_streamed_and_gone_on_from(run: Run) -> None:
    found, chat = run("responses"), run("chat")
    assert found["sent"]["text"] == found["sent"]["streamed"] == chat["text"]
    assert found["kept"] == found["sent"] and found["sent"]["more"]


def test_streamed_calls_of_tools_are_put_together(run: Run) -> None:
    found = run("tools")
    ((name, arguments),) = found["called"]
    assert name == "weather" and arguments["city"] in ("Paris", "Rome")
    assert found["streamed"] == found["called"]
