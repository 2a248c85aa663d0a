"""Prompts whose beginnings are shared: with whom, and what is told of it. Run: pytest tests/gateway/test_cached_tokens.py"""

from __future__ import annotations

from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Ensemble, Gateway, answer

MESSAGE = {"model": "triune", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": CHAT, "completions": COMPLETION, "messages": MESSAGE, "responses": {"model": "triune", "input": "Hi"},
}  # fmt: skip


@pytest.fixture
def cached(ensemble: Ensemble, gateway: Gateway) -> Gateway:
    """Of a prompt of five tokens, three are found."""

    def reply(request: Any) -> Any:
        pieces = answer("Hel", "lo")
        pieces[0]["num_cached_tokens"] = 3
        return pieces

    ensemble.reply = reply
    return gateway


@pytest.mark.parametrize("path", BODIES)
def test_a_salt_goes_to_the_server_as_it_is(gateway: Gateway, path: str) -> None:
    for salt in (None, "tenant 7", "é"):
        assert gateway.post(path, BODIES[path] | {"cache_salt": salt}).status_code == 200
    sent = [request.get("cache_salt") for request in gateway.ensemble.requests]
    assert sent == [None, "tenant 7", "é"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("salt", ["", "x" * 1025, 7, "\ud800"])
def test_what_is_no_salt_is_refused_by_name(gateway: Gateway, path: str, salt: Any) -> None:
    response = gateway.post(path, BODIES[path] | {"cache_salt": salt})
    assert response.status_code == 400 and "cache_salt" in response.text
    assert not gateway.ensemble.requests


def test_usage_says_what_was_found_in_the_words_of_each_protocol(cached: Gateway) -> None:
    usage = {path: cached.post(path, body).json()["usage"] for path, body in BODIES.items()}
    for path in ("chat/completions", "completions"):
        assert (usage[path]["prompt_tokens"], usage[path]["prompt_tokens_details"]) == (5, {"cached_tokens": 3})
    assert usage["responses"]["input_tokens"] == 5 and usage["responses"]["input_tokens_details"]["cached_tokens"] == 3
    of_message = {name: usage["messages"][name] for name in usage["messages"] if "input" in name}
    assert of_message == {"input_tokens": 2, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3}


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_says_it_at_its_end_and_where_it_is_asked_in_every_event(cached: Gateway, path: str) -> None:
    for wanted in ({"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}):
        events = cached.events(path, BODIES[path] | {"stream_options": wanted})
        told = [event["usage"]["prompt_tokens_details"]["cached_tokens"] for event in events if event.get("usage")]
        assert told == [3] * (len(events) if len(wanted) == 2 else 1)


def test_several_prompts_and_choices_count_each_prompt_once(cached: Gateway) -> None:
    usage = cached.complete(prompt=["a", "b"])["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (10, 6)


def test_metrics_count_them(cached: Gateway) -> None:
    cached.chat()
    text = cached.http.get("/metrics").text
    assert 'triune_openai_tokens_total{kind="cached"} 3.0' in text and 'triune_openai_tokens_total{kind="prompt"} 5.0' in text
