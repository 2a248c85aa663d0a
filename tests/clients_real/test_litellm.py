"""LiteLLM. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "litellm"


def test_the_triton_provider_generates_whole_and_streamed(run: Run) -> None:
    found = run("generate")
    for model, answer in found["models"].items():
        assert answer["streamed"].startswith(" Paris") and answer["pieces"] > 3, model
        prompt = "The capital of France is" if model == "vllm_model" else ""  # vLLM's contract gives it back
        assert answer["text"] == prompt + answer["streamed"]
    assert found["stopped"] == " Paris"


def test_the_triton_provider_infers(run: Run) -> None:
    assert run("infer")["text"].startswith(" Paris")


def test_the_openai_provider_chats(run: Run) -> None:
    found = run("openai")
    assert "Paris" in found["text"] and found["streamed"] == found["text"] and found["tokens"] > 0


def test_an_error_names_what_is_not_served(run: Run) -> None:
    found = run("error")
    assert found["kind"] == "BadRequestError"
    assert "beam_width is 4" in found["message"]
