"""An answer's pieces as a row of parts. Run: pytest tests/gateway/test_parts.py"""

from __future__ import annotations

import pytest

from triune_client import Chunk, ToolCallDelta
from triune_gateway.parts import Parts


def parts(*chunks: Chunk, reason: str = "stop") -> list[tuple[str, str, bool]]:
    """Kind, text and wholeness of the parts, whose steps must be in order."""
    found = Parts()
    steps = [step for chunk in chunks for step in found.take(chunk, None)] + list(found.take(Chunk(text=""), reason))
    for part in found.all:
        own = [step for step in steps if step.part is part]
        assert [own[0].what, own[-1].what] == ["begin", "end"] and {step.what for step in own[1:-1]} <= {"piece"}
        assert "".join(step.piece for step in own) == part.text
    assert [step.part.place for step in steps] == sorted(step.part.place for step in steps)
    return [(part.kind, part.text, part.whole) for part in found.all]


def call(*pieces: str, begins: bool = True, text: str = "") -> Chunk:
    head = [ToolCallDelta(index=0, name="f", id="call_1")] if begins else []
    return Chunk(text=text, tool_call_deltas=(*head, *(ToolCallDelta(index=0, arguments=piece) for piece in pieces)))


def test_thinking_text_and_calls_follow_one_another() -> None:
    chunks = [Chunk(text="", reasoning="hm"), Chunk(text="A"), Chunk(text="B"), call("{", "}"), call("[]")]
    assert parts(*chunks) == [("thinking", "hm", True), ("text", "AB", True), ("call", "{}", True), ("call", "[]", True)]


def test_the_rest_of_a_call_comes_before_the_text_behind_it() -> None:
    assert parts(call('{"a"'), call(": 1}", begins=False, text="B")) == [("call", '{"a": 1}', True), ("text", "B", True)]


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_call_is_whole_if_its_arguments_are(reason: str) -> None:
    assert parts(call('{"a"'), reason=reason) == [("call", '{"a"', False)]
    assert parts(call("{}"), reason=reason) == [("call", "{}", True)]


def test_a_text_is_whole_unless_it_was_cut() -> None:
    assert parts(Chunk(text="A"), reason="length") == [("text", "A", False)]
    assert parts(Chunk(text="", reasoning="hm"), reason="length") == [("thinking", "hm", False)]


def test_an_answer_without_words_is_an_empty_text() -> None:
    assert parts() == [("text", "", True)]
    assert parts(Chunk(text="", reasoning="hm")) == [("thinking", "hm", True), ("text", "", True)]
    assert parts(reason="length") == []


def test_log_probabilities_without_text_wait_for_it() -> None:
    found = Parts()
    list(found.take(Chunk(text="", reasoning="hm", logprobs=("thought",)), None))
    steps = [step for text in ("", "A", "") for step in found.take(Chunk(text=text, logprobs=(f"{text}.",)), None)]
    assert found.all[1].logprobs == ["A.", "."]
    assert [step.what for step in steps] == ["end", "begin", "piece"] and found.all[1].untold == ["."]
