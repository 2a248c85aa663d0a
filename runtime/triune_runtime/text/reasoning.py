"""Where a model's thinking ends and its answer begins. Knows bytes and the model's two markers; no tokenizer, no thread.

A text is: white space and the opening marker (often the prompt holds it), the thinking, the closing marker, the answer. Line
breaks on either side of a marker belong to the marker. Only the first opening and the first closing marker count: later ones
are ordinary text. A text that begins with anything but the opening marker, after a prompt that does not hold it, is all
answer; a text whose thinking is never closed is all thinking.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from ..manifest import ReasoningMarkers
from .vocabulary import TokenBytes

_BREAKS = b"\r\n"


def ends_in_thinking(prompt: str, markers: ReasoningMarkers) -> bool:
    """Whether a prompt leaves its thinking open, so that the answer begins inside it."""
    return prompt.rstrip().endswith(markers.start)


def without_thinking(prompt: str, markers: ReasoningMarkers) -> str:
    """A prompt whose thinking is closed and empty, where the template has not seen to it."""
    bare = prompt.rstrip()
    if bare.endswith(markers.end):
        return prompt
    opened = bare if bare.endswith(markers.start) else prompt + markers.start
    return f"{opened}\n\n{markers.end}\n\n"


@dataclass(frozen=True, slots=True)
class Division:
    """Of the bytes that were looked at, those up to `taken` are decided.

    Bytes [skipped, border[0]) are thinking, [border[1], taken) answer; those before and between belong to markers.
    """

    skipped: int
    border: tuple[int, int]
    taken: int


class _State(enum.Enum):
    BEFORE = enum.auto()  # nothing but white space so far
    OPENED = enum.auto()  # at the line breaks after the opening marker
    THINKING = enum.auto()
    CLOSED = enum.auto()  # at the line breaks after the closing marker
    ANSWER = enum.auto()


class Divider:
    """Divides one text, which comes piece by piece, into thinking and answer."""

    def __init__(self, markers: ReasoningMarkers, *, opened: bool) -> None:
        """
        Args:
            opened: the prompt holds the opening marker; a model that writes it again is understood too.
        """
        self._start, self._end = markers.start.encode(), markers.end.encode()
        self._opened = opened
        self._state = _State.BEFORE

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside the thinking."""
        return self._state in (_State.OPENED, _State.THINKING) or (self._state is _State.BEFORE and self._opened)

    def divide(self, data: bytes, *, last: bool = False) -> Division:
        """Decide about `data`: what was looked at but not taken before, and what has come since.

        Args:
            last: nothing follows, so everything is taken.
        """
        at = 0
        if self._state is _State.BEFORE:
            opening = self._open(data, last)
            if opening is None:
                return Division(0, (0, 0), 0)
            at = opening
        if self._state is _State.OPENED and (at := _after_breaks(data, at)) < len(data):
            self._state = _State.THINKING
        begin = stop = at
        if self._state is _State.THINKING:
            found = data.find(self._end, at)
            if found < 0:
                taken = len(data) if last else self._certain(data, at)
                return Division(at, (taken, taken), taken)
            begin, stop = at + len(data[at:found].rstrip(_BREAKS)), found + len(self._end)
            self._state = _State.CLOSED
        if self._state is _State.CLOSED and (stop := _after_breaks(data, stop)) < len(data):
            self._state = _State.ANSWER
        return Division(at, (begin, stop), len(data))

    def _open(self, data: bytes, last: bool) -> int | None:
        """Where the text begins behind its opening marker, if it has one; None while that is not certain."""
        rest = data.lstrip()
        if rest.startswith(self._start):
            self._state = _State.OPENED
            return len(data) - len(rest) + len(self._start)
        if self._start.startswith(rest) and not last:
            return None
        self._state = _State.OPENED if self._opened else _State.ANSWER
        return 0

    def _certain(self, data: bytes, at: int) -> int:
        """How far `data` is thinking even if the closing marker follows."""
        partial = next((n for n in range(len(self._end) - 1, 0, -1) if data.endswith(self._end[:n])), 0)
        return at + len(data[at : len(data) - partial].rstrip(_BREAKS))


def _after_breaks(data: bytes, at: int) -> int:
    return len(data) - len(data[at:].lstrip(_BREAKS))


class ThinkingLimit:
    """Closes the thinking of one answer after a number of tokens, by forcing the tokens that do it."""

    def __init__(self, markers: ReasoningMarkers, token_bytes: TokenBytes, *, opened: bool, budget: int) -> None:
        """
        Args:
            opened: the prompt holds the opening marker.
            budget: the most tokens between the markers; 0 closes the thinking as soon as it is open.
        """
        self._token_bytes = token_bytes
        self._closing = markers.closing_ids
        self._divider = Divider(markers, opened=opened)
        self._undecided = b""
        self._left = budget
        self._forced: deque[int] = deque()

    def forced(self) -> int | None:
        """The token that must come next, if one must."""
        if not self._forced and self._left <= 0 and self._divider.thinking:
            self._forced.extend(self._closing)
        return self._forced[0] if self._forced else None

    def push(self, token_id: int) -> None:
        """Take in the answer's next token: the forced one, where one is."""
        if self._forced:
            self._forced.popleft()
        thinking = self._divider.thinking
        self._undecided += self._token_bytes[token_id]
        self._undecided = self._undecided[self._divider.divide(self._undecided).taken :]
        if thinking and self._divider.thinking:
            self._left -= 1
