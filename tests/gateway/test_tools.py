"""Formats of answers, and calls of tools, in OpenAI's shapes. Run: pytest tests/gateway/test_tools.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import CHAT, Gateway, answer

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}


def calling(cut: int = 25) -> list[dict[str, Any]]:
    pieces = answer(*(CALLS[at : at + cut] for at in range(0, len(CALLS), cut)))
    pieces[0]["tool_format"] = "hermes"
    return pieces


def sent(gateway: Gateway, **body: Any) -> dict[str, Any]:
    gateway.chat(**body)
    return gateway.ensemble.requests[-1]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"response_format": SCHEMA}, SCHEMA),
        ({"response_format": {"type": "json_object"}}, {"type": "json_object"}),
        ({"response_format": {"type": "text"}}, {"type": "text"}),
        ({"structured_outputs": {"regex": "a+", "choice": None}}, {"type": "regex", "regex": "a+"}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"type": "choice", "choice": ["a", "b"]}),
        ({"structured_outputs": {"grammar": "start: A"}}, {"type": "grammar", "grammar": "start: A"}),
        ({"structured_outputs": {"json_object": True}}, {"type": "json_object"}),
        (
            {"structured_outputs": {"json": {"type": "array"}}},
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "array"}, "strict": True}},
        ),
    ],
)
def test_formats_reach_the_server(gateway: Gateway, body: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert json.loads(sent(gateway, **body)["response_format"]) == wanted


def test_a_completion_has_formats_too(gateway: Gateway) -> None:
    gateway.complete(structured_outputs={"regex": "a+"})
    assert json.loads(gateway.ensemble.requests[-1]["response_format"]) == {"type": "regex", "regex": "a+"}


def test_tools_reach_the_server(gateway: Gateway) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    request = sent(gateway, tools=[TOOL], tool_choice=named, parallel_tool_calls=False)
    assert json.loads(request["tools"]) == [TOOL]
    assert json.loads(request["tool_choice"]) == named
    assert request["parallel_tool_calls"] is False
    assert "tools" not in sent(gateway, tools=[], tool_choice="none")


def test_a_conversation_may_hold_calls_and_their_results(gateway: Gateway) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "18 °C", "tool_call_id": "call_1"},
    ]
    assert json.loads(sent(gateway, messages=messages)["messages"]) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "18 °C", "tool_call_id": "call_1"},
    ]


def test_a_whole_answer_has_its_calls_apart(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: calling()
    (choice,) = gateway.chat(tools=[TOOL])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "weather", "arguments": '{"city": "Paris"}'},
        {"name": "weather", "arguments": '{"city": "Rome"}'},
    ]
    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2


def test_an_answer_of_nothing_but_calls_has_no_content(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [piece | {"tool_format": "hermes"} for piece in answer(CALLS[12:])]
    assert gateway.chat(tools=[TOOL])["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize("cut", [1, 7, 25, 1000])
def test_a_streams_deltas_are_the_whole_answer(gateway: Gateway, cut: int) -> None:
    gateway.ensemble.reply = lambda request: calling(cut)
    message = gateway.chat(tools=[TOOL])["choices"][0]["message"]
    events = [event["choices"][0] for event in gateway.events("chat/completions", CHAT | {"tools": [TOOL], "n": 1})]
    assert "".join(event["delta"].get("content", "") for event in events) == message["content"]
    calls = [call for event in events for call in event["delta"].get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 1]
    assert [call["function"] for call in calls] == [call["function"] for call in message["tool_calls"]]
    assert [event["finish_reason"] for event in events if event["finish_reason"]] == ["tool_calls"]


def test_what_calls_nothing_stays_content_and_stops(gateway: Gateway) -> None:
    text = '<tool_call>{"name": "other", "arguments": {}}</tool_call>'
    gateway.ensemble.reply = lambda request: [piece | {"tool_format": "hermes"} for piece in answer(text)]
    (choice,) = gateway.chat(tools=[TOOL])["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    assert "tool_calls" not in choice["message"]


def test_the_servers_word_on_a_format_names_the_field(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: (400, "INVALID_ARGUMENT: response_format.type is 'x'; text is served")
    assert gateway.error("chat/completions", CHAT | {"response_format": {"type": "x"}}, 400)["param"] == "response_format"
