"""/v1/chat/completions: what the server is asked, and what the client gets. Run: pytest tests/gateway/test_chat.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import CHAT, Ensemble, Gateway, answer, piece

THOUGHT = [
    piece(reasoning_output="Let me", num_input_tokens=5, num_reasoning_tokens=1),
    piece("So", reasoning_output=" see.", num_output_tokens=3, num_reasoning_tokens=2),
    piece(" 4.", "stop"),
]


def sent(gateway: Gateway, **body: Any) -> dict[str, Any]:
    """What the server is asked, but for what is always there."""
    gateway.chat(**body)
    request = dict(gateway.ensemble.requests[-1])
    assert request.pop("stream") is True
    assert request.pop("id")
    return request


def test_a_whole_answer_has_openais_shape(gateway: Gateway) -> None:
    found = gateway.chat()
    assert found.pop("id").startswith("chatcmpl-")
    assert isinstance(found.pop("created"), int)
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert found == {
        "object": "chat.completion", "model": "triune", "system_fingerprint": None,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }  # fmt: skip


def test_a_stream_is_the_whole_answer_in_pieces(gateway: Gateway) -> None:
    events = gateway.events("chat/completions", CHAT)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["delta"] for choice in choices[1:]] == [{"content": "Hel"}, {"content": "lo"}, {}]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert not any("usage" in event for event in events)


def test_a_stream_ends_with_usage_when_asked(gateway: Gateway) -> None:
    *events, last = gateway.events("chat/completions", CHAT | {"stream_options": {"include_usage": True}})
    assert all(event["usage"] is None and event["choices"] for event in events)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 8


def test_usage_can_be_in_every_event(gateway: Gateway) -> None:
    events = gateway.events("chat/completions", CHAT | {"stream_options": {"continuous_usage_stats": True}})
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 1, 2, 3, 3]


def test_thinking_is_kept_apart_and_counted(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: list(THOUGHT)
    found = gateway.chat()
    assert found["choices"][0]["message"]["reasoning_content"] == "Let me see."
    assert found["choices"][0]["message"]["content"] == "So 4."
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert found["usage"]["completion_tokens"] == 5


def test_thinking_is_streamed_apart(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: list(THOUGHT)
    deltas = [event["choices"][0]["delta"] for event in gateway.events("chat/completions", CHAT)]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me see."
    assert "".join(delta.get("content", "") for delta in deltas) == "So 4."


def test_choices_are_one_request_and_have_seeds_of_their_own(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer(str(request["seed"]))
    found = gateway.chat(n=3, seed=7)
    seeds = [int(choice["message"]["content"]) for choice in found["choices"]]
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    assert seeds[0] == 7 and len(set(seeds)) == 3 and all(0 <= seed < 2**64 for seed in seeds)
    assert found["usage"]["prompt_tokens"] == 5  # the prompt counts once
    assert found["usage"]["completion_tokens"] == 6
    assert [(request["n"], request["seed"]) for request in gateway.ensemble.requests] == [(3, 7)]
    again = gateway.chat(n=3, seed=7)
    assert [choice["message"] for choice in again["choices"]] == [choice["message"] for choice in found["choices"]]


def test_streamed_choices_are_told_apart_by_their_index(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer(f"{request['seed'] % 1000} ", "a", "b")
    whole = [choice["message"]["content"] for choice in gateway.chat(n=4, seed=1)["choices"]]
    assert len(set(whole)) == 4
    texts = [""] * 4
    reasons: list[Any] = [None] * 4
    for event in gateway.events("chat/completions", CHAT | {"n": 4, "seed": 1}):
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        reasons[choice["index"]] = choice["finish_reason"]
    assert (texts, reasons) == (whole, ["stop"] * 4)


def test_choices_end_by_themselves_and_are_all_counted(gateway: Gateway) -> None:
    lengths = {}

    def reply(request: Any) -> Any:
        number = len(lengths)
        lengths[request["seed"]] = number
        return answer(*"abcdef"[: number + 1], reason="length" if number else "stop")

    gateway.ensemble.reply = reply
    events = gateway.events("chat/completions", CHAT | {"n": 3, "seed": 1, "stream_options": {"include_usage": True}})
    ended = [(e["choices"][0]["index"], e["choices"][0]["finish_reason"]) for e in events[:-1]]
    assert [one for one in ended if one[1]] == [(0, "stop"), (1, "length"), (2, "length")]
    assert events[-1]["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


def test_an_answer_that_one_choice_is_missing_of_is_an_error(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer("a") if request["seed"] == 1 else [piece("a")]
    assert "closed the stream" in gateway.error("chat/completions", CHAT | {"n": 2, "seed": 1}, 503)["message"]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, {}),
        ({"n": 1}, {}),
        ({"n": 2}, {"n": 2}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_completion_tokens": 4, "max_tokens": 4}, {"max_tokens": 4}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"top_p": 0}, {"top_p": 1e-6}),  # the server's 0 is "off"
        ({"top_k": -1, "min_p": 0.1}, {"top_k": 0, "min_p": 0.1}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"max_tokens": 3.0}, {"max_tokens": 3}),  # in JSON the same number
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"logit_bias": {"17": -100}}, {"logit_bias": '{"17": -100.0}'}),
        ({"presence_penalty": 1, "frequency_penalty": -2}, {"presence_penalty": 1.0, "frequency_penalty": -2.0}),
        ({"repetition_penalty": 1.1, "min_tokens": 2}, {"repetition_penalty": 1.1, "min_tokens": 2}),
        ({"ignore_eos": True, "bad_words": ["x"]}, {"ignore_eos": True, "bad_words": ["x"]}),
        ({"reasoning_effort": "none"}, {"enable_thinking": False}),
        ({"enable_thinking": True, "thinking_budget": 9}, {"enable_thinking": True, "thinking_budget": 9}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        ({"user": "me", "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "x"}, {}),
        ({"temperature": None, "stop": None, "tools": None, "n": None, "stream": None}, {}),
    ],
)
def test_options_reach_the_server(gateway: Gateway, body: dict[str, Any], wanted: dict[str, Any]) -> None:
    request = sent(gateway, **body)
    request.pop("messages")
    assert request.pop("split_special_tokens") is True
    assert request == wanted


def test_messages_reach_the_server_as_its_templates_know_them(gateway: Gateway) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": [], "audio": None, "function_call": None,
         "tool_calls": None, "reasoning_content": "Hm."},
        {"role": "user", "content": "Ü"},
    ]  # fmt: skip
    assert json.loads(sent(gateway, messages=messages)["messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab", "name": "Ann"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        {"role": "user", "content": "Ü"},
    ]


def test_the_model_answers_to_its_aliases(start: Any, ensemble: Ensemble) -> None:
    gateway = start(aliases=("smollm2", "triune"))
    assert [model["id"] for model in gateway.http.get("/v1/models").json()["data"]] == ["triune", "smollm2"]
    assert gateway.chat(model="smollm2")["model"] == "smollm2"
    assert gateway.http.get("/v1/models/smollm2").json()["object"] == "model"
