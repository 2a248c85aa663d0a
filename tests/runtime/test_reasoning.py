"""Thinking and answer divided, for any tokens, markers and stop strings. Run: pytest tests/runtime/test_reasoning.py"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_runtime.manifest import ReasoningMarkers
from triune_runtime.text.cut import Cut, merge
from triune_runtime.text.cutter import TextCutter
from triune_runtime.text.reasoning import Divider, ThinkingLimit, ends_in_thinking
from triune_runtime.text.vocabulary import TokenBytes

# Markers as one token, in parts, glued to text, repeated; line breaks, characters in parts, bytes that are no UTF-8.
PIECES = [b"<think>", b"</think>", b"<", b"<th", b"ink>", b"</", b"</thi", b"nk>", b"a</think>\n", b"x\n</think>\n\ny", b">\n"]
PIECES += [b"\n", b"\n\n", b"\r\n", b" ", b"a", b"b", b"ab", b"", "中".encode(), b"\xe4\xb8", b"\xad", b"\xff", b"<think>\nb"]
TABLE = TokenBytes(PIECES)
MARKERS = ReasoningMarkers(start="<think>", end="</think>", closing_ids=(11, 1, 12))
OPEN = PIECES.index(b"<think>")
CLOSE = PIECES.index(b"</think>")
A = PIECES.index(b"a")
tokens = st.lists(st.integers(0, len(PIECES) - 1), max_size=25)
stops = st.lists(st.sampled_from(["ab", "aa", "</think>", "\n\n", "k>\n", "b<", "中"]), max_size=2, unique=True)
_PARTS = re.compile(r"(?:\s*<think>[\r\n]*)?(.*?)[\r\n]*</think>[\r\n]*(.*)", re.S | re.A)
_OPENING = re.compile(r"\s*<think>[\r\n]*", re.S | re.A)


def raw_text(token_ids: list[int], stop: list[str]) -> str:
    """All bytes at once, up to the stop string that is complete first (the longest of several)."""
    data = b"".join(PIECES[t] for t in token_ids)
    ends = [(data.find(s.encode()) + len(s.encode()), -len(s.encode())) for s in stop if s.encode() in data]
    return data[: sum(min(ends)) if ends else None].decode("utf-8", "replace")


def parts_of_text(text: str, opened: bool) -> tuple[str, str]:
    """Thinking and answer of a whole text, by the rule as it is documented, with a regular expression."""
    begun = _OPENING.match(text)
    if not begun and not opened:
        return "", text
    if found := _PARTS.fullmatch(text):
        thinking, answer = found.groups()
    else:
        thinking, answer = text[begun.end() :] if begun else text, ""
    return (thinking if begun else thinking.lstrip("\r\n")), answer


def cuts_of(token_ids: list[int], stop: list[str], opened: bool) -> list[Cut]:
    cutter, cuts = TextCutter(TABLE, stop, divider=Divider(MARKERS, opened=opened)), []
    for token in token_ids:
        cut = cutter.push(token)
        if cut is not None:
            cuts.append(cut)
            if cut.stop_reason:
                return cuts
    last = cutter.finish()
    return [*cuts, last] if last else cuts


def decoded(cut: Cut, begin: int, stop: int) -> str:
    return TABLE.join(cut.token_ids)[begin:stop].decode("utf-8", "replace")


def parts_of(cuts: list[Cut]) -> tuple[str, str]:
    """Every cut decoded on its own, as detokenize does."""
    thinking = answer = ""
    for cut in cuts:
        if cut.token_ids:
            assert cut.border is not None
            assert cut.byte_start <= cut.border[0] <= cut.border[1] <= cut.byte_stop
            thinking += decoded(cut, cut.byte_start, cut.border[0])
            answer += decoded(cut, cut.border[1], cut.byte_stop)
    return thinking, answer


@given(tokens, stops, st.booleans())
def test_pieces_put_together_are_the_parts_of_the_whole_text(token_ids: list[int], stop: list[str], opened: bool) -> None:
    assert parts_of(cuts_of(token_ids, stop, opened)) == parts_of_text(raw_text(token_ids, stop), opened)


@given(tokens, stops, st.booleans(), st.lists(st.booleans(), min_size=30, max_size=30))
def test_merging_pieces_in_any_grouping_changes_nothing(
    token_ids: list[int], stop: list[str], opened: bool, together: list[bool]
) -> None:
    cuts = cuts_of(token_ids, stop, opened)
    merged: list[Cut] = []
    for cut, join in zip(cuts, together, strict=False):
        if join and merged:
            merged[-1] = merge(merged[-1], cut)
        else:
            merged.append(cut)
    assert parts_of(merged) == parts_of(cuts)
    assert sum(c.reasoning_tokens for c in merged) == sum(c.reasoning_tokens for c in cuts)


@given(tokens, st.booleans())
def test_thinking_marker_and_answer_are_the_raw_text_but_for_line_breaks(token_ids: list[int], opened: bool) -> None:
    thinking, answer = parts_of(cuts_of(token_ids, [], opened))
    text = raw_text(token_ids, [])
    if "</think>" in text and thinking + answer != text:
        rebuilt = thinking + "</think>" + answer
        bare = _OPENING.sub("", text, count=1) if _OPENING.match(text) else text
        assert rebuilt.replace("\n", "").replace("\r", "") == bare.replace("\n", "").replace("\r", "")


@given(tokens, stops, st.booleans())
def test_a_part_neither_begins_nor_ends_with_its_marker_s_line_breaks(
    token_ids: list[int], stop: list[str], opened: bool
) -> None:
    thinking, answer = parts_of(cuts_of(token_ids, stop, opened))
    if thinking:
        assert not answer.startswith(("\n", "\r"))
        assert thinking[0] not in "\r\n"
        assert not answer or thinking[-1] not in "\r\n"


@given(tokens, st.booleans())
def test_thinking_tokens_are_those_that_begin_in_the_thinking(token_ids: list[int], opened: bool) -> None:
    cuts = cuts_of(token_ids, [], opened)
    data = b"".join(PIECES[t] for t in token_ids)
    if not any(c.border and c.border[0] > c.byte_start for c in cuts):
        assert sum(c.reasoning_tokens for c in cuts) == 0
        return
    lead = re.match(rb"\s*<think>[\r\n]*", data) or (re.match(rb"[\r\n]*", data) if opened else None)
    assert lead is not None
    end = data.find(b"</think>", lead.end())
    stop = len(data) if end < 0 else len(data[:end].rstrip(b"\r\n"))
    starts, at = [], 0
    for token in token_ids:
        starts += [at] if PIECES[token] else []
        at += len(PIECES[token])
    assert sum(c.reasoning_tokens for c in cuts) == sum(lead.end() <= s < stop for s in starts)


@given(tokens, st.booleans())
def test_only_undecided_text_is_held_back(token_ids: list[int], opened: bool) -> None:
    """White space before the text, line breaks and a marker's beginning, and a character's: never more."""
    cutter = TextCutter(TABLE, divider=Divider(MARKERS, opened=opened))
    seen: list[int] = []
    for token in token_ids:
        seen.append(token)
        cutter.push(token)
        held = cutter._buffer[cutter._start :]
        assert re.fullmatch(rb"\s*[\r\n]*(?:<(?:/?(?:t(?:h(?:i(?:nk?)?)?)?)?)?)?[\x80-\xff]{0,3}", held), held


@pytest.mark.parametrize(
    ("text", "opened", "thinking", "answer"),
    [
        ("Hm.\n</think>\n\nYes.", True, "Hm.", "Yes."),  # R1: the prompt ends in <think>
        ("<think>\nHm.\n</think>\n\nYes.", False, "Hm.", "Yes."),  # R1-0528 and Qwen3 open it themselves
        ("<think>\nHm.</think>Yes.", True, "Hm.", "Yes."),  # opened twice
        ("Yes.", False, "", "Yes."),
        ("Yes. <think>no</think>", False, "", "Yes. <think>no</think>"),  # too late: ordinary text
        ("Hm, then", True, "Hm, then", ""),  # never closed
        ("a</think>b</think><think>c", True, "a", "b</think><think>c"),
        ("\n\n</think>\n\n    code", True, "", "    code"),  # indentation is not a line break
        ("a\n\nb\n</think>", True, "a\n\nb", ""),
        ("<think", False, "", "<think"),
        ("a\n</thin", True, "a\n</thin", ""),
    ],
)
def test_the_rule_by_example(text: str, opened: bool, thinking: str, answer: str) -> None:
    for chunk in (1, 2, 3, len(text)):
        divider, data, parts = Divider(MARKERS, opened=opened), b"", ["", ""]
        pieces = [text[i : i + chunk].encode() for i in range(0, len(text), chunk)]
        for i, piece in enumerate(pieces):
            data += piece
            found = divider.divide(data, last=i == len(pieces) - 1)
            parts[0] += data[found.skipped : found.border[0]].decode()
            parts[1] += data[found.border[1] : found.taken].decode()
            data = data[found.taken :]
        assert parts == [thinking, answer]


@given(tokens, st.integers(0, 6), st.booleans())
def test_a_limit_closes_the_thinking_after_its_budget_and_forces_nothing_else(
    token_ids: list[int], budget: int, opened: bool
) -> None:
    limit = ThinkingLimit(MARKERS, TABLE, opened=opened, budget=budget)
    answer, forced = [], []
    for token in token_ids:
        must = limit.forced()
        forced += [] if must is None else [len(answer)]
        answer.append(token if must is None else must)
        limit.push(answer[-1])
    if not forced:
        return
    assert forced == list(range(forced[0], forced[0] + len(forced)))  # in one run
    assert [answer[i] for i in forced] == list(MARKERS.closing_ids[: len(forced)])
    tracker, data, spent = Divider(MARKERS, opened=opened), b"", 0
    for token in answer[: forced[0]]:
        before = tracker.thinking
        data += PIECES[token]
        data = data[tracker.divide(data).taken :]
        spent += before and tracker.thinking
    assert spent == budget
    if len(forced) == len(MARKERS.closing_ids):
        assert sum(c.reasoning_tokens for c in cuts_of(answer, [], opened)) <= budget


def test_a_limit_of_nothing_closes_at_once_and_of_much_never() -> None:
    none = ThinkingLimit(MARKERS, TABLE, opened=True, budget=0)
    assert none.forced() == MARKERS.closing_ids[0]
    own = ThinkingLimit(MARKERS, TABLE, opened=False, budget=0)
    assert own.forced() is None
    own.push(OPEN)
    assert own.forced() == MARKERS.closing_ids[0]
    much = ThinkingLimit(MARKERS, TABLE, opened=True, budget=3)
    for token in (A, A, CLOSE, A, A, A, A):
        assert much.forced() is None
        much.push(token)


def test_a_prompt_ends_in_thinking_when_the_marker_is_its_last_word() -> None:
    assert ends_in_thinking("<|Assistant|><think>\n", MARKERS)
    assert not ends_in_thinking("<|Assistant|><think>\n\n</think>\n\n", MARKERS)
    assert not ends_in_thinking("what is <think>?", MARKERS)
