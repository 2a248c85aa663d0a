"""Cut text equals the whole text, to the byte, for any tokens and stop strings. Run: pytest tests/runtime/test_cutter.py"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triune_runtime.text.cut import Cut, merge
from triune_runtime.text.cutter import TextCutter, render
from triune_runtime.text.vocabulary import TokenBytes

PIECES = [bytes([b]) for b in (0x61, 0x62, 0x20, 0xF0, 0x9F, 0x98, 0x80, 0xE4, 0xB8, 0xAD, 0xFF, 0xC3)]
PIECES += [b"ab", b"ba", b"", b"aba", "中".encode(), "😀".encode(), "b😀a".encode(), b"\xe4\xb8", b"\xad\xe4"]
TABLE = TokenBytes(PIECES)
tokens = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)
stops = st.lists(st.sampled_from(["ab", "aba", "bb", "a b", "😀", "中a", "b😀", "aab", "中中"]), max_size=3, unique=True)


def whole_text(token_ids: list[int], stop: list[str]) -> tuple[str, str | None]:
    """By definition: all bytes at once, up to the stop string that is complete first (the longest of several)."""
    data = b"".join(PIECES[t] for t in token_ids)
    found = [(data.find(s.encode()) + len(s.encode()), -len(s.encode()), s) for s in stop if s.encode() in data]
    if not found:
        return data.decode("utf-8", "replace"), None
    end, negative_length, name = min(found)
    return data[: end + negative_length].decode("utf-8", "replace"), name


def cuts_of(token_ids: list[int], stop: list[str]) -> list[Cut]:
    cutter, cuts = TextCutter(TABLE, stop), []
    for token in token_ids:
        cut = cutter.push(token)
        if cut is not None:
            cuts.append(cut)
            if cut.stop_reason:
                return cuts
    last = cutter.finish()
    return [*cuts, last] if last else cuts


def text_of(cuts: list[Cut]) -> str:
    return "".join(render(c.token_ids, c.byte_start, c.byte_stop, TABLE) for c in cuts)


@given(tokens, stops)
def test_pieces_put_together_are_the_whole_text(token_ids: list[int], stop: list[str]) -> None:
    cuts = cuts_of(token_ids, stop)
    text, name = whole_text(token_ids, stop)
    assert text_of(cuts) == text
    assert (cuts[-1].stop_reason if cuts else None) == name


@given(tokens, stops, st.lists(st.booleans(), min_size=40, max_size=40))
def test_merging_pieces_in_any_grouping_changes_nothing(token_ids: list[int], stop: list[str], join: list[bool]) -> None:
    cuts = cuts_of(token_ids, stop)
    merged: list[Cut] = []
    for cut, together in zip(cuts, join, strict=False):
        if together and merged:
            merged[-1] = merge(merged[-1], cut)
        else:
            merged.append(cut)
    assert text_of(merged) == text_of(cuts)
    if merged:
        assert merged[-1].stop_reason == cuts[-1].stop_reason


@given(tokens, stops)
def test_only_undecided_text_is_held_back(token_ids: list[int], stop: list[str]) -> None:
    cutter = TextCutter(TABLE, stop)
    data, out = b"", 0
    for token in token_ids:
        data += PIECES[token]
        cut = cutter.push(token)
        if cut is not None:
            out += cut.byte_stop - cut.byte_start
            if cut.stop_reason:
                return
        held = data[out:]
        longest = max((len(s.encode()) - 1 for s in stop), default=0)
        assert len(held) <= max(longest, 0) + 3  # a stop string's beginning, and a character's before it


def test_a_stop_string_is_text_until_min_tokens() -> None:
    ab = PIECES.index(b"ab")
    cutter = TextCutter(TABLE, ["ab"], min_tokens=3)
    assert [cutter.push(ab) for _ in range(2)] == [Cut((ab,), 0, 2), Cut((ab,), 0, 2)]
    third = cutter.push(ab)
    assert third is not None
    assert third.stop_reason == "ab"


def test_a_stop_string_inside_a_token_cuts_the_token() -> None:
    token = PIECES.index("b😀a".encode())
    cut = TextCutter(TABLE, ["😀"]).push(token)
    assert cut == Cut((token,), 0, 1, "😀")


def test_a_character_that_spans_tokens_comes_whole() -> None:
    cutter = TextCutter(TABLE)
    parts = [cutter.push(PIECES.index(bytes([b]))) for b in "😀".encode()]
    assert parts[:3] == [None, None, None]
    assert parts[3] is not None
    assert render(parts[3].token_ids, parts[3].byte_start, parts[3].byte_stop, TABLE) == "😀"
