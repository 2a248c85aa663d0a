"""Run: pytest tests/clients/test_sse.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_client._sse import SseDecoder

# Any text an event can carry on one line, weighted towards many-byte characters.
LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)) | st.sampled_from("é中🙂\u2028\x85"))
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """The bytes of an event stream, and the data of its events."""
    written, expected = "", []
    for lines in draw(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=6)):
        end = draw(ENDS)
        if draw(st.booleans()):
            written += f": a comment{end}"
        if draw(st.booleans()):
            written += f"event: x{end}id: 7{end}"
        written += "".join(f"data: {line}{end}" for line in lines) + end
        expected.append("\n".join(lines))
    return written.encode(), expected


def fed(stream: bytes, cuts: list[int]) -> list[str]:
    decoder, found, start = SseDecoder(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += decoder.feed(stream[start:cut])
        start = cut
    return found


@given(streams(), st.lists(st.integers(0, 10_000), max_size=20))
def test_events_do_not_depend_on_where_the_bytes_are_cut(stream: tuple[bytes, list[str]], cuts: list[int]) -> None:
    written, expected = stream
    assert fed(written, cuts) == expected


@given(streams())
def test_single_bytes_give_the_same_events(stream: tuple[bytes, list[str]]) -> None:
    written, expected = stream
    assert fed(written, list(range(len(written)))) == expected


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\n\r") == ["a"]
    assert decoder.feed(b"\ndata: b\n\n") == ["b"]


def test_an_unfinished_event_is_not_given() -> None:
    assert SseDecoder().feed(b"data: a\n\ndata: half\n") == ["a"]


def test_a_byte_order_mark_is_skipped() -> None:
    assert SseDecoder().feed("\ufeffdata: a\n\n".encode()) == ["a"]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert SseDecoder().feed(b"data:  a\n\ndata:b\n\n") == [" a", "b"]


def test_bytes_that_are_not_utf8_are_an_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        SseDecoder().feed(b"data: \xff\n\n")
