"""The package pydantic-ai. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "pydantic-ai"


def test_an_agent_has_the_same_answers_over_every_protocol(run: Run) -> None:
    found = run("agent")
    assert set(found) == {"responses", "chat", "messages"}
    for answers in found.values():
        assert "Paris" in answers["text"] and answers["streamed"] == answers["text"]
        assert "Madrid" in answers["more"] and answers["city"]
        assert answers["more"] == found["chat"]["more"]
