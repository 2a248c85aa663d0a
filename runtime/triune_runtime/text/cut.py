"""A piece of an answer's text as bytes of its tokens, and two neighbouring pieces as one. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """Bytes [byte_start, byte_stop) of the concatenated bytes of `token_ids`, always whole UTF-8.

    Where thinking is kept apart, what is before `border` is thinking, what is after it answer, and what is in it neither.
    Neighbouring cuts may name the same token where a character spans it; their bytes never overlap.
    """

    token_ids: tuple[int, ...]
    byte_start: int
    byte_stop: int
    stop_reason: str | None = None  # the stop string that ended the answer
    border: tuple[int, int] | None = None  # bytes, like byte_start; None: thinking is not kept apart
    reasoning_tokens: int = 0  # tokens whose first byte is thinking

    @property
    def has_text(self) -> bool:
        """Whether it holds anything but markers."""
        return self.byte_start < self.byte_stop and self.border != (self.byte_start, self.byte_stop)


NOTHING = Cut((), 0, 0)


def merge(first: Cut, second: Cut) -> Cut:
    """Two neighbouring cuts of one answer as one."""
    if not first.token_ids:
        return second
    # A cut that begins inside a token shares that token with the cut before.
    new = second.token_ids[1:] if second.byte_start else second.token_ids
    length = (first.byte_stop - first.byte_start) + (second.byte_stop - second.byte_start)
    return Cut(
        first.token_ids + new,
        first.byte_start,
        first.byte_start + length,
        second.stop_reason,
        _merged_border(first, second),
        first.reasoning_tokens + second.reasoning_tokens,
    )


def _merged_border(first: Cut, second: Cut) -> tuple[int, int] | None:
    """The border of two neighbours: the first's, or the second's where the first ends before its own."""
    if first.border is None or second.border is None:
        return first.border
    moved = first.byte_stop - second.byte_start
    begin, stop = first.border
    return (
        second.border[0] + moved if begin == first.byte_stop else begin,
        second.border[1] + moved if stop == first.byte_stop else stop,
    )
