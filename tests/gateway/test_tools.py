"""Formats of answers, and calls of tools, in OpenAI's shapes. Run: pytest tests/gateway/test_tools.py"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.ensemble import CHAT, Ensemble, Gateway, answer
from triune_gateway.settings import Settings

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


def streamed(gateway: Gateway, **body: Any) -> tuple[str | None, list[dict[str, Any]], list[str]]:
    """Content, calls and finish reasons as a client puts them together; the events of calls are checked to be OpenAI's."""
    content, calls, reasons = "", [], []
    for event in gateway.events("chat/completions", CHAT | {"tools": [TOOL]} | body):
        (choice,) = event["choices"]
        content += choice["delta"].get("content", "")
        reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
        for piece in choice["delta"].get("tool_calls", ()):
            assert len(choice["delta"]["tool_calls"]) == 1
            if "id" in piece:
                assert piece["function"] == {"name": "weather", "arguments": ""} and piece["type"] == "function"
                calls.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
            else:
                assert set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"}
                assert piece["function"]["arguments"]
                calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            assert piece["index"] == len(calls) - 1
    return content or None, calls, reasons


@pytest.mark.parametrize("cut", [1, 7, 25, 1000])
def test_a_streams_deltas_are_the_whole_answer(gateway: Gateway, cut: int) -> None:
    gateway.ensemble.reply = lambda request: calling(cut)
    message = gateway.chat(tools=[TOOL])["choices"][0]["message"]
    content, calls, reasons = streamed(gateway)
    assert content == message["content"]
    assert [call["function"] for call in calls] == [call["function"] for call in message["tool_calls"]]
    assert reasons == ["tool_calls"]


def test_the_arguments_of_a_call_come_piece_by_piece(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: calling(1)
    events = gateway.events("chat/completions", CHAT | {"tools": [TOOL]})
    pieces = [piece for event in events for piece in event["choices"][0]["delta"].get("tool_calls", ())]
    assert [(piece["index"], piece["function"]["arguments"]) for piece in pieces] == [
        (index, piece)
        for index, arguments in enumerate(('{"city": "Paris"}', '{"city": "Rome"}'))
        for piece in ("", *arguments)
    ]


@pytest.mark.parametrize(("reason", "wanted"), [("length", "length"), ("stop", "stop")])
def test_a_call_that_is_cut_off_says_so(gateway: Gateway, reason: str, wanted: str) -> None:
    text = CALLS[: CALLS.index("Rome") + 2]
    gateway.ensemble.reply = lambda request: [p | {"tool_format": "hermes"} for p in answer(text, reason=reason)]
    (choice,) = gateway.chat(tools=[TOOL])["choices"]
    written = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert (written, choice["finish_reason"]) == (['{"city": "Paris"}', '{"city": "Ro'], wanted)
    _, calls, reasons = streamed(gateway)
    assert ([call["function"]["arguments"] for call in calls], reasons) == (written, [wanted])


# Between the server and the client, a border of two pieces may be anywhere: inside an event, an escape, a character.
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["</tool_call>", "<tool_call>", '"}', "\\", "é😀"])


def cut_anywhere(text: str, data: st.DataObject) -> list[bytes]:
    """The events of an answer, cut into chunks, as bytes that are cut again."""
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = answer(*(text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)))
    pieces[0]["tool_format"] = "hermes"
    events = b"".join(b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in pieces)
    borders = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6)))
    return [events[a:b] for a, b in zip([0, *borders], [*borders, len(events)], strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(_TEXT, _TEXT, max_size=3), st.booleans()), min_size=1, max_size=2), st.data())
def test_random_calls_are_the_same_streamed_and_whole(calls: list[tuple[dict[str, str], bool]], data: st.DataObject) -> None:
    written = [json.dumps(arguments, ensure_ascii=ascii_only) for arguments, ascii_only in calls]
    text = "".join(f'<tool_call>\n{{"name": "weather", "arguments": {one}}}\n</tool_call>' for one in written)
    scripts = [cut_anywhere(text, data) for _ in range(2)]
    ensemble = Ensemble()
    ensemble.reply = lambda request: [*scripts[len(ensemble.requests) - 1]]
    gateway = Gateway(ensemble, Settings())
    with gateway.http:
        message = gateway.chat(tools=[TOOL])["choices"][0]["message"]
        assert [call["function"]["arguments"] for call in message["tool_calls"]] == written
        content, found, reasons = streamed(gateway)
        assert [call["function"]["arguments"] for call in found] == written
        assert (content, message["content"], reasons) == (None, None, ["tool_calls"])


@pytest.mark.parametrize("cut", [1, 40])
def test_each_choice_has_its_own_calls(gateway: Gateway, cut: int) -> None:
    gateway.ensemble.reply = lambda request: calling(cut) if request["seed"] == 4 else answer("None.")
    choices = gateway.chat(tools=[TOOL], n=2, seed=4)["choices"]
    assert [len(choice["message"].get("tool_calls", ())) for choice in choices] == [2, 0]
    assert [choice["finish_reason"] for choice in choices] == ["tool_calls", "stop"]
    found = ["", ""]
    for event in gateway.events("chat/completions", CHAT | {"tools": [TOOL], "n": 2, "seed": 4}):
        (choice,) = event["choices"]
        for call in choice["delta"].get("tool_calls", ()):
            found[choice["index"]] += call["function"]["arguments"]
    assert found == ['{"city": "Paris"}{"city": "Rome"}', ""]


def test_what_calls_nothing_stays_content_and_stops(gateway: Gateway) -> None:
    text = '<tool_call>{"name": "other", "arguments": {}}</tool_call>'
    gateway.ensemble.reply = lambda request: [piece | {"tool_format": "hermes"} for piece in answer(text)]
    (choice,) = gateway.chat(tools=[TOOL])["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    assert "tool_calls" not in choice["message"]


def test_the_servers_word_on_a_format_names_the_field(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: (
        400,
        "INVALID_ARGUMENT [invalid_value response_format]: response_format.type is 'x'; text is served",
    )
    assert gateway.error("chat/completions", CHAT | {"response_format": {"type": "x"}}, 400)["param"] == "response_format"
