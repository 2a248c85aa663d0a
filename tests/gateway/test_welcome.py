"""What clients of vLLM and of OpenAI's newest package send besides. Run: pytest tests/gateway/test_welcome.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Gateway, piece

HARMLESS: dict[str, tuple[Any, ...]] = {
    "skip_special_tokens": (True,), "spaces_between_special_tokens": (True, False), "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0, 0), "use_beam_search": (False,), "early_stopping": (False,), "priority": (0,),
    "detokenize": (True,), "logits_processors": ([],), "vllm_xargs": ({},), "kv_transfer_params": ({},),
    "mm_processor_kwargs": ({},), "return_token_ids": (False,), "echo": (False,), "guided_decoding_backend": ("xgrammar",),
    "best_of": (1,), "user": ("u",),
}  # fmt: skip
OF_CHATS: dict[str, tuple[Any, ...]] = {
    "verbosity": ("medium",), "modalities": (["text"],), "store": (False,), "service_tier": ("auto",),
    "metadata": ({"a": "b"},),
    "prompt_cache_key": ("k",), "safety_identifier": ("s",), "prompt_cache_retention": ("24h",), "documents": ([],),
    "prediction": ({"type": "content", "content": "x"},), "chat_template_kwargs": ({},),
}  # fmt: skip


def test_every_value_that_asks_for_what_happens_anyway_is_welcome(gateway: Gateway) -> None:
    plain_chat, plain_completion = CHAT, COMPLETION
    gateway.chat()
    gateway.complete()
    for name, values in (HARMLESS | OF_CHATS).items():
        for value in (None, *values):
            gateway.chat(**plain_chat | {name: value})
    for name, values in HARMLESS.items():
        for value in (None, *values):
            gateway.complete(**plain_completion | {name: value})
    sent = [{key: value for key, value in request.items() if key != "id"} for request in gateway.ensemble.requests]
    assert all(request in sent[:2] for request in sent)  # and changes nothing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skip_special_tokens", False), ("include_stop_str_in_output", True), ("length_penalty", 2.0), ("length_penalty", True),
        ("use_beam_search", True), ("early_stopping", True), ("priority", 1), ("detokenize", False), ("allowed_token_ids", [1]),
        ("truncate_prompt_tokens", 5), ("logits_processors", ["x"]), ("vllm_xargs", {"a": 1}), ("kv_transfer_params", {"a": 1}),
        ("mm_processor_kwargs", {"a": 1}), ("return_token_ids", True), ("prompt_embeds", "x"), ("best_of", 3),
        ("guided_whitespace_pattern", " "), ("repetition_detection", {}),
    ],
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_served_is_refused_by_name(gateway: Gateway, name: str, value: Any) -> None:
    for path, body in (("chat/completions", CHAT), ("completions", COMPLETION)):
        error = gateway.error(path, body | {name: value}, 400)
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert name in error["message"]
    assert not gateway.ensemble.requests


def test_a_refusal_says_the_value_and_what_is_served(gateway: Gateway) -> None:
    message = gateway.error("chat/completions", CHAT | {"priority": 3}, 400)["message"]
    assert "priority is 3" in message and "Only 0 is served" in message


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ({"guided_regex": "a+"}, {"type": "regex", "regex": "a+"}),
        ({"guided_choice": ["a", "b"]}, {"type": "choice", "choice": ["a", "b"]}),
        ({"guided_grammar": "start: A"}, {"type": "grammar", "grammar": "start: A"}),
        ({"guided_json": {"type": "object"}}, {"schema": {"type": "object"}}),
        ({"guided_json": '{"type": "object"}'}, {"schema": '{"type": "object"}'}),
        (
            {"structured_outputs": {"json": {}, "disable_additional_properties": True, "disable_any_whitespace": False}},
            {"schema": {}, "disable_additional_properties": True},
        ),
    ],
)
def test_every_way_to_prescribe_an_answer_is_the_servers_own(gateway: Gateway, field: Any, form: Any) -> None:
    gateway.chat(**field)
    gateway.complete(**field)
    if "schema" in form:
        inner = {"name": "answer", "schema": form.pop("schema"), "strict": True}
        form = {"type": "json_schema", "json_schema": inner} | form
    assert [json.loads(sent["response_format"]) for sent in gateway.ensemble.requests] == [form, form]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "guided_regex and guided_choice both say"),
        ({"response_format": {"type": "text"}, "guided_json": {}}, "guided_json", "response_format and guided_json"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}, "structured_outputs", "whitespace_pattern"),
        ({"structured_outputs": {"yaml": "a"}}, "structured_outputs", "structured_outputs.yaml"),
        ({"structured_outputs": {}}, "structured_outputs", "has none"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message", "both true"),
    ],
)
def test_what_contradicts_itself_is_refused(gateway: Gateway, body: Any, param: str, said: str) -> None:
    error = gateway.error("chat/completions", CHAT | body, 400)
    assert error["param"] == param and said in error["message"]


def test_what_makes_the_prompt_is_sent_on(gateway: Gateway) -> None:
    gateway.chat(add_generation_prompt=False, chat_template_kwargs={"a": [1], "b": None}, documents=[{"text": "x"}])
    gateway.chat(continue_final_message=True, add_special_tokens=True, stop_token_ids=[3, 4.0])
    first, second = gateway.ensemble.requests
    assert first["add_generation_prompt"] is False
    assert json.loads(first["chat_template_kwargs"]) == {"a": [1], "documents": [{"text": "x"}]}
    assert (second["continue_final_message"], second["add_special_tokens"]) == (True, True)
    assert second["stop_token_ids"] == [3, 4]


def test_thinking_may_be_left_out_of_the_answer(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [
        piece("", reasoning_output="Hm.", num_reasoning_tokens=1), piece("Yes"), piece("", "stop"),
    ]  # fmt: skip
    found = gateway.chat(include_reasoning=False)
    assert "reasoning_content" not in found["choices"][0]["message"] and found["choices"][0]["message"]["content"] == "Yes"
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1
    events = gateway.events("chat/completions", CHAT | {"include_reasoning": False})
    assert not any("reasoning_content" in choice["delta"] for event in events for choice in event["choices"])
    assert gateway.chat(include_reasoning=True)["choices"][0]["message"]["reasoning_content"] == "Hm."


def test_the_client_may_name_its_request(gateway: Gateway) -> None:
    assert gateway.chat(request_id="mine")["id"] == "chatcmpl-mine"
    assert gateway.complete(request_id="mine")["id"] == "cmpl-mine"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"stop": [str(n) for n in range(65)]}, "stop", "it has 65 entries; at most 64 are taken"),
        ({"stop": [None]}, "stop[0]", "a string is expected, not null"),
        ({"stop": ["a", ["b"]]}, "stop[1]", 'a string is expected, not ["b"]'),
        ({"stop": 3}, "stop", "a string or a list is expected, not 3"),
        ({"stop": {"a": 1}}, "stop", "a string or a list is expected"),
        ({"tool_choice": "any", "tools": []}, "tool_choice", 'tool_choice is "any"; "none", "auto", "required" or an object'),
        ({"tool_choice": 3}, "tool_choice", "a string or an object is expected, not 3"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", 'an object is expected, not "x"'),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, 5]}]}, "messages[0].content[1]", "not 5"),
        ({"guided_json": [1]}, "guided_json", "a string or an object or true or false is expected, not [1]"),
        ({"guided_choice": ["a", 1]}, "guided_choice[1]", "a string is expected, not 1"),
        ({"stop_token_ids": [1, "a"]}, "stop_token_ids[1]", 'a whole number is expected, not "a"'),
        ({"bad_words": ["x"] * 1025}, "bad_words", "it has 1,025 entries; at most 1,024 are taken"),
        ({"tools": [3]}, "tools[0]", "an object is expected, not 3"),
        ({"documents": {"a": 1}}, "documents", "a list is expected"),
    ],
)
def test_an_error_names_the_entry_its_value_and_what_is_expected(gateway: Gateway, body: Any, param: str, said: str) -> None:
    error = gateway.error("chat/completions", CHAT | body, 400)
    assert error["param"] == param and said in error["message"], error


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
def test_a_compressed_body_is_named_as_such(gateway: Gateway, coding: str) -> None:
    error = gateway.error("chat/completions", CHAT, 415, **{"content-encoding": coding})
    assert coding in error["message"] and "Content-Encoding" in error["message"]
    assert gateway.post("chat/completions", CHAT, **{"content-encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", CHAT),
        ("messages", CHAT | {"max_tokens": 9}),
        ("responses", {"model": "triune", "input": "<|im_start|>"}),
    ],
)
def test_what_messages_spell_of_special_tokens_is_text(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    assert gateway.post(path, body).status_code == 200
    assert gateway.ensemble.requests[-1]["split_special_tokens"] is True


def test_whoever_makes_messages_of_special_tokens_may_say_so(gateway: Gateway) -> None:
    gateway.chat(split_special_tokens=False)
    assert gateway.ensemble.requests[-1]["split_special_tokens"] is False
    gateway.complete()
    assert "split_special_tokens" not in gateway.ensemble.requests[-1]
