"""Tool calls in an answer's text, whole and in pieces. Run: pytest tests/clients/test_tool_calls.py"""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from triune_client import ToolCall
from triune_client._tools import ToolCallParser

NAMES = ("weather", "add")
FORMATS = ("hermes", "deepseek_r1", "deepseek_v31", "llama3")
CALLS, CALLS_END, CALL, SEP, CALL_END = (
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
)  # fmt: skip
PARIS, SUM = '{"city": "Paris"}', '{"a": 1, "b": {"c": "}"}}'
# Answers as the families write them, and the names and arguments in them.
WRITTEN = {
    "hermes": (
        f'<tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "add", "arguments": {SUM}}}\n</tool_call>'
    ),
    "deepseek_r1": (
        f"{CALLS}{CALL}function{SEP}weather\n```json\n{PARIS}\n```{CALL_END}\n"
        f"{CALL}function{SEP}add\n```json\n{SUM}\n```{CALL_END}{CALLS_END}"
    ),
    "deepseek_v31": f"{CALLS}{CALL}weather{SEP}{PARIS}{CALL_END}{CALL}add{SEP}{SUM}{CALL_END}{CALLS_END}",
    "llama3": f'<|python_tag|>{{"name": "weather", "parameters": {PARIS}}}; {{"name": "add", "parameters": {SUM}}}',
}


def parse(form: str, *pieces: str) -> tuple[str, list[ToolCall]]:
    parser = ToolCallParser(form, NAMES)
    done = [*(parser.push(piece) for piece in pieces), parser.finish()]
    return "".join(text for text, _ in done), [call for _, calls in done for call in calls]


@pytest.mark.parametrize("form", FORMATS)
def test_calls_are_taken_out_of_the_text(form: str) -> None:
    text, calls = parse(form, WRITTEN[form])
    assert text == ""
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", json.loads(PARIS)),
        ("add", json.loads(SUM)),
    ]
    assert len({call.id for call in calls}) == 2
    assert calls[1].parsed_arguments == json.loads(SUM)


@pytest.mark.parametrize("form", FORMATS)
def test_text_before_calls_stays_text_without_the_space_between(form: str) -> None:
    text, calls = parse(form, "Let me see.\n\n" + WRITTEN[form])
    assert text == "Let me see."
    assert len(calls) == 2


@pytest.mark.parametrize("form", ["hermes", "deepseek_r1", "deepseek_v31"])
def test_text_after_calls_stays_text(form: str) -> None:
    assert parse(form, WRITTEN[form] + "\n\nThat is all. \n")[0] == "That is all. \n"


@pytest.mark.parametrize("form", FORMATS)
def test_a_call_is_handed_out_when_it_is_complete(form: str) -> None:
    parser, seen = ToolCallParser(form, NAMES), []
    for character in WRITTEN[form]:
        seen.append(len(parser.push(character)[1]))
    assert sum(seen[: len(seen) * 3 // 4]) == 1


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": 3}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>'),
        ("hermes", '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        ("hermes", "<tool_call> soon </tool_call>"),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"ci'),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}} and more'),
        ("hermes", '{"name": "weather", "arguments": {}}'),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weather\n```json\n{{'city': 1}}\n```{CALL_END}{CALLS_END}"),
        ("deepseek_r1", f"{CALLS}nothing{CALLS_END}"),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weather\n```json\n{PARIS}"),
        ("deepseek_v31", f"{CALL}weather{SEP}[1]{CALL_END}"),
        ("llama3", '{"name": "weather"}'),
        ("llama3", '{"a": 1} is JSON'),
        ("llama3", 'So: {"name": "weather", "parameters": {}}'),
        ("llama3", "{a; b}; {"),
        ("llama3", "<|python_tag|>print(1)"),
        ("none of them", WRITTEN["hermes"]),
    ],
)
def test_what_is_no_call_stays_text(form: str, text: str) -> None:
    assert parse(form, text) == (text, [])


def test_a_call_behind_a_malformed_one_is_found() -> None:
    broken = '<tool_call>{"name": "weather", "arguments": ]}</tool_call>'
    text, calls = parse("hermes", broken + WRITTEN["hermes"])
    assert (text, [call.name for call in calls]) == (broken, ["weather", "add"])


def test_a_last_call_may_lack_its_closing_tag() -> None:
    assert [call.name for call in parse("hermes", WRITTEN["hermes"].removesuffix("</tool_call>"))[1]] == ["weather", "add"]


def test_deeply_nested_arguments_are_text() -> None:
    text = '<tool_call>{"name": "weather", "arguments": ' + "[" * 5000
    assert parse("hermes", text) == (text, [])


FRAGMENTS = st.sampled_from(
    [
        *WRITTEN.values(), CALLS, CALLS_END, CALL, SEP, CALL_END, PARIS, SUM, "<tool_call>", "</tool_call>", "<|python_tag|>",
        "{",
        "}", ";", " ", "\n", '"', "\\", "weather", "function", "```json", "text", "<", "ü", '{"name": "add", "arguments": {}}',
        '{"name": "add", "parameters": {}}', "[", "]",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(FRAGMENTS, max_size=8), st.data())
@example("hermes", ["text", " ", WRITTEN["hermes"], "\n", "text"], None)
def test_however_an_answer_is_cut_it_holds_the_same(form: str, fragments: list[str], data: st.DataObject | None) -> None:
    whole = "".join(fragments)
    cuts = [*whole] if data is None else []
    if data is not None:
        places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
        cuts = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert parse(form, *cuts) == parse(form, whole) == parse(form, *whole)
