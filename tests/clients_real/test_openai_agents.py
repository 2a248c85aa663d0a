"""The package openai-agents. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "openai-agents"


def test_an_agent_answers_whole_and_streamed_and_goes_on_from_an_answer(run: Run) -> None:
    found = run("agent")
    assert "Paris" in found["text"] and found["streamed"] == found["text"] == "".join(found["pieces"])
    assert len(found["pieces"]) > 3 and found["more"]


def test_a_tool_is_called_and_its_result_read_whether_the_answer_was_kept_or_sent_back(run: Run) -> None:
    found = run("tools")
    assert found["asked"] and all("Paris" in city for city in found["asked"])
    assert found["kept"] == found["sent"] and found["sent"]["streamed"] == found["sent"]["text"]
    assert found["sent"]["items"] == ["tool_called", "tool_output", "message_output_created"]
    assert "18 degrees" in found["sent"]["text"]
