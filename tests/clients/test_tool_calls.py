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
    """The text and the calls, which the pieces of calls must make up too."""
    parser = ToolCallParser(form, NAMES)
    done = [*(parser.push(piece) for piece in pieces), parser.finish()]
    calls = [call for found in done for call in found.calls]
    streamed: list[list[str]] = []
    for delta in (delta for found in done for delta in found.deltas):
        if delta.name:  # the first of its call, which has no arguments yet
            assert (delta.index, delta.arguments) == (len(streamed), "") and delta.id
            streamed.append([delta.name, delta.id, ""])
        else:
            assert (delta.index, delta.id) == (len(streamed) - 1, "") and delta.arguments
            streamed[delta.index][2] += delta.arguments
    assert streamed == [[call.name, call.id, call.arguments] for call in calls]
    return "".join(found.text for found in done), calls


def flat(calls: list[ToolCall]) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in calls]


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
def test_arguments_are_handed_out_as_they_come(form: str) -> None:
    parser = ToolCallParser(form, NAMES)
    head, _, rest = WRITTEN[form].partition('"Par')
    begun = parser.push(head + '"Par').deltas
    assert [(delta.name, delta.arguments) for delta in begun] == [("weather", ""), ("", '{"city": "Par')]
    found = [parser.push(character) for character in rest]
    assert [delta.arguments for one in found[:4] for delta in one.deltas] == ["i", "s", '"', "}"]
    assert [call.arguments for call in found[3].calls] == [PARIS]  # it has ended, whatever follows


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": 3}\n</tool_call>'),
        ("hermes", '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        ("hermes", "<tool_call> soon </tool_call>"),
        ("hermes", '<tool_call>{"name": "weather", "argum'),
        ("hermes", '<tool_call>{"name": "weath'),
        ("hermes", '<tool_call>{"name": "weather", "arguments": '),
        ("hermes", '<tool_call>{"arguments": {"city": "Paris"}, "name": "unknown"}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"city": "Paris"}}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"city": </tool_call>'),
        ("hermes", '{"name": "weather", "arguments": {}}'),
        ("deepseek_r1", f"{CALLS}nothing{CALLS_END}"),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weather\n```json\n"),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weat"),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}unknown\n```json\n{PARIS}\n```{CALL_END}{CALLS_END}"),
        ("deepseek_v31", f"{CALL}unknown{SEP}{PARIS}{CALL_END}"),
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


@pytest.mark.parametrize(
    ("form", "text", "arguments", "rest"),
    [
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"city": }}</tool_call>', '{"city": }', ""),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"ci', '{"ci', ""),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"a": [1</tool_call> So.', '{"a": [1', "So."),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}} and more', "{}", "and more"),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}, "id": {"a": "}"}}</tool_call> So.', "{}", "So."),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}, "id": 3', "{}", ', "id": 3'),
        ("hermes", '<tool_call>{"arguments": {"a": "\\"}"},"x":[1], "name": "weather"}</tool_call>', '{"a": "\\"}"}', ""),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}}</tool_c', "{}", ""),
        ("hermes", f'<tool_call>{{"name": "weather", "arguments": {PARIS}', PARIS, ""),
        ("deepseek_r1", f"{CALL}function{SEP}weather\n```json\n{{'a': 1}}\n```{CALL_END}{CALLS_END}", "{'a': 1}", ""),
        ("deepseek_r1", f"{CALL}function{SEP}weather\n{PARIS}{CALL_END}", PARIS, ""),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weather\n```json\n{PARIS}", PARIS, ""),
        ("deepseek_r1", f"{CALLS}{CALL}function{SEP}weather\n```json\n{PARIS}\n``", PARIS, ""),
        ("deepseek_v31", f"{CALL}weather{SEP}{{[1{CALL_END}{CALLS_END}", "{[1", ""),
        ("llama3", '{"type": "function", "name": "weather", "parameters": {"a": 1}', '{"a": 1}', ""),
        ("llama3", '{"name": "weather", "arguments": {"a": "\\', '{"a": "\\', ""),
    ],
)  # fmt: skip
def test_arguments_are_what_the_model_wrote(form: str, text: str, arguments: str, rest: str) -> None:
    assert parse(form, text) == parse(form, *text) == (rest, [ToolCall(name="weather", arguments=arguments)])


def test_an_answer_that_ends_inside_a_call_is_known() -> None:
    for text, cut_off in ((WRITTEN["hermes"], False), (WRITTEN["hermes"][:60], True), ("text", False), ("<tool_call>", False)):
        parser = ToolCallParser("hermes", NAMES)
        parser.push(text)
        parser.finish()
        assert parser.cut_off == cut_off


def test_what_only_looks_like_a_call_is_handed_out_at_once() -> None:
    for form, text in (("hermes", '<tool_call>{"name": "wet'), ("deepseek_r1", f"{CALL}function{SEP}wet"), ("llama3", "{a")):
        assert ToolCallParser(form, NAMES).push(text).text == text


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


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(FRAGMENTS, max_size=8), st.data())
@example("hermes", ["text", " ", WRITTEN["hermes"], "\n", "text"], None)
def test_however_an_answer_is_cut_it_holds_the_same(form: str, fragments: list[str], data: st.DataObject | None) -> None:
    whole = "".join(fragments)
    cuts = [*whole] if data is None else []
    if data is not None:
        places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
        cuts = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert parse(form, *cuts) == parse(form, whole) == parse(form, *whole)


# What models write: random arguments, spaced at random, whose text is kept; so the reference is what was written, not a parser.
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["</tool_call>", "<tool_call>", CALL_END, CALLS_END, "```", '"}', "\\", '\\"', "}}}", "{", "<", "é\U0001f600", "; {"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.builds(
    lambda value, ascii_only, indent, separators: json.dumps(
        value, ensure_ascii=ascii_only, indent=indent, separators=separators
    ),
    st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans(), st.sampled_from([None, 2]),
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " : ")]),
)  # fmt: skip
CALLED = st.lists(st.tuples(st.sampled_from(NAMES), ARGUMENTS), min_size=1, max_size=3)
PROSE = st.sampled_from(["", "Let me see.", "a < b and <tool", 'Say "<｜tool" ü', "1. {x}"])


def write(form: str, calls: list[tuple[str, str]], data: st.DataObject) -> list[tuple[str, str | None]]:
    """The parts of an answer that calls: texts, and what each is of a call's arguments; None for punctuation."""
    parts: list[tuple[str, str | None]] = []
    if form.startswith("deepseek") and data.draw(st.booleans()):
        parts.append((CALLS, None))
    for number, (name, arguments) in enumerate(calls):
        space = data.draw(st.sampled_from(["", " ", "\n"]))
        if form == "hermes":
            before, after = f'<tool_call>{space}{{"name":{space}"{name}", "arguments": ', f"{space}}}{space}</tool_call>{space}"
        elif form == "deepseek_r1":
            fence, close = data.draw(st.sampled_from([("```json\n", "\n```"), ("", "")]))
            before, after = f"{CALL}function{SEP}{name}\n{fence}", f"{close}{CALL_END}{space}"
        elif form == "deepseek_v31":
            before, after = f"{CALL}{name}{SEP}{space}", f"{space}{CALL_END}"
        else:
            key = data.draw(st.sampled_from(["parameters", "arguments"]))
            begin = "; " if number else "<|python_tag|>"
            before, after = f'{begin}{{{space}"name": "{name}", "{key}":{space}', f"{space}}}{space}"
        parts += [(before, None), (arguments, name), (after, None)]
    return parts


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), PROSE, CALLED, st.data())
def test_random_calls_come_as_they_were_written(
    form: str, prose: str, calls: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole = prose + "".join(text for text, _ in write(form, calls, data))
    for pieces in ([whole], cut(whole, data), [*whole]):
        text, found = parse(form, *pieces)
        assert text == prose
        assert flat(found) == calls


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), CALLED, st.data())
def test_calls_that_are_cut_off_are_there_as_far_as_they_came(
    form: str, calls: list[tuple[str, str]], data: st.DataObject
) -> None:
    parts = write(form, calls, data)
    length = data.draw(st.integers(0, sum(len(text) for text, _ in parts)))
    wanted, left, inside = [], length, False
    for text, name in parts:
        if name is not None and left > 0:
            wanted.append((name, text[:left]))
            inside = left < len(text)
        left -= len(text)
    whole = "".join(text for text, _ in parts)[:length]
    parser = ToolCallParser(form, NAMES)
    found = [*map(parser.push, cut(whole, data)), parser.finish()]
    assert flat([call for one in found for call in one.calls]) == wanted
    assert parser.cut_off == inside
    assert flat(parse(form, whole)[1]) == wanted
