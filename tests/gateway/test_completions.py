"""/v1/completions: what the server is asked, and what the client gets. Run: pytest tests/gateway/test_completions.py"""

from __future__ import annotations

from fakes.ensemble import COMPLETION, Gateway, answer


def test_a_whole_answer_has_openais_shape(gateway: Gateway) -> None:
    found = gateway.complete()
    assert found["id"].startswith("cmpl-")
    assert found["object"] == "text_completion"
    assert found["choices"] == [{"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}]
    assert found["usage"]["total_tokens"] == 8
    assert gateway.ensemble.requests[0]["text_input"] == "Once"


def test_sixteen_tokens_are_the_default_as_at_openai(gateway: Gateway) -> None:
    gateway.complete()
    gateway.complete(max_tokens=99)
    assert [request["max_tokens"] for request in gateway.ensemble.requests] == [16, 99]


def test_a_stream_is_the_whole_answer_in_pieces(gateway: Gateway) -> None:
    events = gateway.events("completions", COMPLETION | {"stream_options": {"include_usage": True}})
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["Hel", "lo", ""]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None, None, "stop"]
    assert events[-1]["usage"]["completion_tokens"] == 3


def test_each_prompt_has_n_choices_in_order(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer(request["text_input"] * 2, f" {request['seed'] == 3}")
    found = gateway.complete(prompt=["a", "b"], n=2, seed=3)
    assert [choice["text"] for choice in found["choices"]] == ["aa True", "aa False", "bb True", "bb False"]
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert found["usage"]["prompt_tokens"] == 10  # each prompt once


def test_an_echo_puts_the_prompt_before_the_answer(gateway: Gateway) -> None:
    assert gateway.complete(prompt="Once ", echo=True)["choices"][0]["text"] == "Once Hello"
    events = gateway.events("completions", COMPLETION | {"echo": True})
    assert "".join(event["choices"][0]["text"] for event in events) == "OnceHello"


def test_reaching_the_most_tokens_is_told(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer("a", reason="length")
    assert gateway.complete()["choices"][0]["finish_reason"] == "length"
