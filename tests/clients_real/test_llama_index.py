"""LlamaIndex's package for Triton. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run
from support.real_server import RealServer

pytestmark = pytest.mark.triton
CLIENT = "llama-index"


def test_a_completion_is_the_same_whole_and_streamed_and_a_chat_answers(run: Run) -> None:
    found = run("complete")
    assert found["text"].startswith(" Paris") and found["text"] == found["streamed"] == found["deltas"]
    assert "Paris" in found["chat"]


def test_an_error_names_what_is_not_served(run: Run) -> None:
    assert "beam_width is 4" in run("error")["message"]


def test_its_stop_signal_ends_the_request(run: Run, server: RealServer) -> None:
    found = run("stop", timeout_s=60)
    assert found["first"] == " Paris"
    assert found["left"] < 1000  # of 1,500 tokens
    server.wait_idle()
