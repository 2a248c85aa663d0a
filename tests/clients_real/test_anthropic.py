"""The package anthropic. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "anthropic"


def test_a_message_is_the_same_whole_and_streamed_with_its_usage(run: Run) -> None:
    found = run("message")
    assert "Paris" in found["text"] and "".join(found["pieces"]) == found["text"] and len(found["pieces"]) > 3
    assert found["reasons"] == ["end_turn"] * 2
    assert found["usage"][0] == found["usage"][1] and found["usage"][0]["output_tokens"] > 3


def test_a_tool_is_called_and_its_result_read(run: Run) -> None:
    found = run("tools")
    assert found["whole"] == found["streamed"] and found["reason"] == "tool_use" and found["after"] > 0
    assert all(name == "weather" and arguments["city"] in ("Paris", "Rome") for name, arguments in found["whole"])


def test_errors_are_the_package_s_own(run: Run) -> None:
    assert run("errors") == {
        "model": ["NotFoundError", "not_found_error"],
        "container": ["BadRequestError", "invalid_request_error"],
        "tokens": ["BadRequestError", "invalid_request_error"],
    }
