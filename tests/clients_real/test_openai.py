"""The package openai. Run: make test-clients"""

from __future__ import annotations

import json

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "openai"


def test_a_chat_is_the_same_whole_and_streamed_with_its_usage(run: Run) -> None:
    found = run("chat")
    assert "Paris" in found["text"] and found["streamed"] == found["text"]
    assert found["pieces"] > 3 and found["reason"] == "stop"
    assert found["usage"][0] == found["usage"][1] > 0


def test_a_completion_has_its_choices_and_log_probabilities(run: Run) -> None:
    found = run("completion")
    assert found["texts"][0].startswith(" Paris") and found["texts"] == [found["streamed"]] * 2
    assert "".join(found["tokens"]) == found["texts"][0]


def test_log_probabilities_of_a_chat_spell_its_text(run: Run) -> None:
    found = run("logprobs")
    assert found["text"].startswith(found["content"])  # the end of the turn is a token too
    assert set(found["tops"]) == {3} and found["best_first"]


def test_the_package_puts_streamed_calls_together(run: Run) -> None:
    found = run("tools")
    assert found["streamed"] == found["whole"] and len(found["whole"]) == 2
    assert found["reasons"] == ["tool_calls"] * 2
    written = [json.loads(arguments) for calls in found["whole"] for arguments in calls]
    assert written and all(arguments["city"] in ("Paris", "Rome") for arguments in written)
    assert found["pieces"] > 2 * len(written)


def test_a_response_is_the_chats_answer_whole_streamed_kept_and_gone_on_from(run: Run) -> None:
    found, chat = run("responses"), run("chat")
    assert found["texts"] == [chat["text"]] * 3
    assert found["kinds"][0] == "response.created" and found["kinds"][-1] == "response.completed"
    assert found["more"][0] == found["more"][1] and found["items"] == ["message"] * 3
    assert found["usage"] == chat["usage"]


def test_a_response_calls_functions_and_reads_their_results(run: Run) -> None:
    found = run("response_tools")
    assert found["streamed"] == found["whole"] and found["after"] > 0
    assert all(json.loads(arguments)["city"] in ("Paris", "Rome") for arguments in found["whole"]) and found["whole"]


def test_errors_are_the_package_s_own(run: Run) -> None:
    found = run("errors")
    assert found["errors"] == {
        "model": ["NotFoundError", "model_not_found", None],
        "length": ["BadRequestError", "context_length_exceeded", None],
        "temperature": ["BadRequestError", "invalid_value", "temperature"],
        "audio": ["BadRequestError", "unsupported_parameter", "modalities"],
    }
    assert "triune" in found["models"]
