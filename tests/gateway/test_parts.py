"""An answer's pieces as a row of parts. Run: pytest tests/gateway/test_parts.py"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from triune_client import Chunk, ToolCallDelta, Usage
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
    thought = Chunk(text="", reasoning="hm", logprobs=("thought",), usage=Usage(output_tokens=1, reasoning_tokens=1))
    list(found.take(thought, None))
    steps = [step for text in ("", "A", "") for step in found.take(Chunk(text=text, logprobs=(f"{text}.",)), None)]
    assert found.all[1].logprobs == [".", "A.", "."]
    assert [step.what for step in steps] == ["end", "begin", "piece"] and found.all[1].untold == ["."]


def test_log_probabilities_of_a_text_do_not_depend_on_how_tokens_are_bundled() -> None:
    """Two tokens of thinking, of which the second is told late, the marker behind it, and two of text."""

    def token(name: str, *, reasoning: str = "", text: str = "", thoughts: int = 0) -> Chunk:
        usage = Usage(output_tokens=1, reasoning_tokens=thoughts)
        return Chunk(text=text, reasoning=reasoning, logprobs=(name,), usage=usage)

    tokens = [
        token("t0", reasoning="h", thoughts=1), token("t1"), token("mark", reasoning="m", thoughts=1),
        token("x0", text="A"), token("x1", text="B"),
    ]  # fmt: skip
    for borders in itertools.product((False, True), repeat=len(tokens) - 1):
        found = Parts()
        told: list[str] = []
        for bundle in bundles(tokens, borders):
            for step in found.take(bundle, None):
                told += step.part.untold if step.part.kind == "text" and step.what == "piece" else ()
        thinking, text = found.all
        assert (thinking.text, text.text, text.logprobs, told) == ("hm", "AB", ["mark", "x0", "x1"], ["mark", "x0", "x1"])


def bundles(tokens: list[Chunk], borders: tuple[bool, ...]) -> Iterator[Chunk]:
    """The chunks that a client has of tokens that come together, where there is no border between them."""
    bundle: list[Chunk] = []
    for chunk, border in zip(tokens, (*borders, True), strict=True):
        bundle.append(chunk)
        if border:
            text, reasoning = ("".join(getattr(one, name) for one in bundle) for name in ("text", "reasoning"))
            thoughts = sum(one.usage.reasoning_tokens for one in bundle)
            usage = Usage(output_tokens=len(bundle), reasoning_tokens=thoughts)
            logprobs = tuple(entry for one in bundle for entry in one.logprobs)
            if text and reasoning:
                yield Chunk(text="", reasoning=reasoning)
            yield Chunk(text=text, reasoning="" if text else reasoning, logprobs=logprobs, usage=usage)
            bundle = []
