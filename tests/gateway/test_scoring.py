"""Prompts as token ids, echoes with log probabilities, and vLLM's prompt_logprobs. Run: pytest tests/gateway/test_scoring.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import COMPLETION, Gateway, answer, piece

FIRST = {"token_id": 7, "bytes": list(b"On")}
SECOND = {"token_id": 8, "logprob": -1.5, "rank": 3, "bytes": list(b"ce"), "top": [[9, -0.5]], "top_bytes": [list(b"ly")]}
MADE = {"token_id": 9, "logprob": -0.25, "bytes": list(b"!"), "top": [[9, -0.25]], "top_bytes": [list(b"!")]}


def scored(gateway: Gateway) -> None:
    """Answers whose first piece says how likely the prompt is, if that is asked for."""

    def reply(request: dict[str, Any]) -> list[Any]:
        entries = {"prompt_logprobs": json.dumps([FIRST, SECOND])} if "top_prompt_logprobs" in request else {}
        made = {"logprobs": json.dumps([MADE])} if "top_logprobs" in request else {}
        return [piece("!", num_input_tokens=2, **entries, **made), piece("", "length", num_output_tokens=0)]

    gateway.ensemble.reply = reply


def test_token_ids_are_sent_as_they_are(gateway: Gateway) -> None:
    gateway.complete(prompt=[5, 6, 7])
    (request,) = gateway.ensemble.requests
    assert request["prompt_token_ids"] == [5, 6, 7] and "text_input" not in request


def test_every_prompt_of_a_batch_is_answered_by_itself(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer(str(request.get("text_input") or sum(request["prompt_token_ids"])))
    found = gateway.complete(prompt=[[1, 2], "x", [3], [4, 5, 6]], n=2)
    assert [choice["text"] for choice in found["choices"]] == ["3", "3", "x", "x", "3", "3", "15", "15"]
    assert [choice["index"] for choice in found["choices"]] == list(range(8))


@pytest.mark.parametrize(
    ("prompt", "param", "said"),
    [
        ([1, 2.5], "prompt[1]", "2.5"),
        ([1, -1], "prompt[1]", "-1"),
        ([1, None], "prompt[0]", "a text or token ids are expected, not 1"),
        ([[1, "a"]], "prompt[0][1]", '"a"'),
        ([[1, True]], "prompt[0][1]", "true"),
        ([[[1]]], "prompt[0][0]", "a token id is expected, not [1]"),
        ([[]], "prompt[0]", "at least one token id"),
        (["a", 3], "prompt[1]", "not 3"),
        (5, "prompt", "not 5"),
        ({"text": "a"}, "prompt", "a text, token ids, or a list of these"),
        ([2**31], "prompt[0]", "2147483648"),
    ],
)
def test_what_is_no_prompt_is_named_with_its_place(gateway: Gateway, prompt: Any, param: str, said: str) -> None:
    error = gateway.error("completions", COMPLETION | {"prompt": prompt}, 400)
    assert error["param"] == param and said in error["message"]
    assert not gateway.ensemble.requests


def test_a_token_that_the_model_does_not_have_is_named_as_the_client_sent_it(gateway: Gateway) -> None:
    said = (
        "INVALID_ARGUMENT [invalid_value prompt_token_ids[1]]: prompt_token_ids[1] is 999; token ids from 0 to 99 are expected"
    )
    gateway.ensemble.reply = lambda request: (400, said)
    assert gateway.error("completions", COMPLETION | {"prompt": [1, 999]}, 400)["param"] == "prompt[1]"


def test_an_echo_with_logprobs_has_those_of_the_prompt_first(gateway: Gateway) -> None:
    scored(gateway)
    for prompt in ("Once", [7, 8]):
        (choice,) = gateway.complete(prompt=prompt, echo=True, logprobs=1, max_tokens=1)["choices"]
        assert choice["text"] == "Once!"
        assert choice["logprobs"] == {
            "tokens": ["On", "ce", "!"],
            "token_logprobs": [None, -1.5, -0.25],
            "top_logprobs": [None, {"ce": -1.5, "ly": -0.5}, {"!": -0.25}],
            "text_offset": [0, 2, 4],
        }
    assert [request["top_prompt_logprobs"] for request in gateway.ensemble.requests] == [1, 1]
    assert not gateway.ensemble.tokenized  # the tokens say their text themselves


def test_a_stream_says_what_the_whole_answer_says(gateway: Gateway) -> None:
    scored(gateway)
    body = COMPLETION | {"prompt": [7, 8], "echo": True, "logprobs": 1}
    whole = gateway.complete(**body)["choices"][0]
    events = [event["choices"][0] for event in gateway.events("completions", body)]
    assert "".join(event["text"] for event in events) == whole["text"]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [value for event in events for value in event["logprobs"][name]] == whole["logprobs"][name]


def test_logprobs_0_has_no_alternatives(gateway: Gateway) -> None:
    scored(gateway)
    found = gateway.complete(echo=True, logprobs=0)["choices"][0]["logprobs"]
    assert found["token_logprobs"] == [None, -1.5, -0.25] and found["top_logprobs"] == [None] * 3
    assert gateway.ensemble.requests[0]["top_prompt_logprobs"] == 0


def test_logprobs_without_an_echo_are_of_the_answer_alone(gateway: Gateway) -> None:
    scored(gateway)
    assert gateway.complete(logprobs=1)["choices"][0]["logprobs"]["tokens"] == ["!"]
    assert "top_prompt_logprobs" not in gateway.ensemble.requests[0]


def test_no_tokens_may_be_asked_for(gateway: Gateway) -> None:
    scored(gateway)
    found = gateway.complete(prompt=[7, 8], echo=True, logprobs=1, max_tokens=0, min_tokens=0)
    (choice,) = found["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Once", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -1.5]
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (2, 0)
    assert gateway.ensemble.requests[0]["max_tokens"] == 1  # the fewest that there can be
    gateway.ensemble.reply = lambda request: answer("x", reason="stop")
    assert gateway.complete(max_tokens=0)["choices"][0] | {"logprobs": 0} == {
        "index": 0, "text": "", "logprobs": 0, "finish_reason": "length",
    }  # fmt: skip
    assert gateway.error("chat/completions", {"model": "triune", "messages": [], "max_tokens": 0}, 400)["param"]


def test_an_echo_of_token_ids_is_their_text_as_answers_have_it(gateway: Gateway) -> None:
    ids = [0, *b"Hi "]
    assert gateway.complete(prompt=ids, echo=True)["choices"][0]["text"] == "Hi Hello"
    events = gateway.events("completions", COMPLETION | {"prompt": [ids, "Oh "], "echo": True})
    texts = ["".join(c["text"] for e in events for c in e["choices"] if c["index"] == index) for index in (0, 1)]
    assert texts == ["Hi Hello", "Oh Hello"]


def test_prompt_logprobs_has_vllms_form_on_both_endpoints(gateway: Gateway) -> None:
    scored(gateway)
    ranked = [
        None,
        {
            "8": {"logprob": -1.5, "rank": 3, "decoded_token": "ce"},
            "9": {"logprob": -0.5, "rank": 1, "decoded_token": "ly"},
        },
    ]
    assert gateway.complete(prompt_logprobs=1)["choices"][0]["prompt_logprobs"] == ranked
    assert gateway.chat(prompt_logprobs=1)["prompt_logprobs"] == ranked
    assert "prompt_logprobs" not in gateway.complete() and "prompt_logprobs" not in gateway.chat()
    error = gateway.error("completions", COMPLETION | {"prompt_logprobs": 0, "stream": True}, 400)
    assert error["param"] == "prompt_logprobs"


def test_tokens_may_be_shown_by_their_numbers(gateway: Gateway) -> None:
    scored(gateway)
    found = gateway.complete(echo=True, logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert found["tokens"] == ["token_id:7", "token_id:8", "token_id:9"]
    assert found["top_logprobs"][1] == {"token_id:8": -1.5, "token_id:9": -0.5}
    assert found["text_offset"] == [0, 2, 4]
    entry = gateway.chat(logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]["content"][0]
    assert (entry["token"], entry["bytes"], entry["top_logprobs"][0]["token"]) == ("token_id:9", [33], "token_id:9")
