"""A constraint on the answer alone: while the model thinks, every token may come."""

from __future__ import annotations

from ..manifest import ReasoningMarkers
from ..text.reasoning import Divider
from ..text.vocabulary import TokenBytes
from . import Constraint
from .bits import Bits, places


class AfterThinking:
    """Holds a constraint back until the thinking is closed, or until it is certain that there is none.

    A text that need not begin with thinking may: then the marker that opens it is allowed beside what the constraint allows.
    The line breaks that the model writes after its closing marker are no part of the answer, so they are allowed too.
    """

    def __init__(
        self, inner: Constraint, markers: ReasoningMarkers, token_bytes: TokenBytes, *, opened: bool, may_open: bool
    ) -> None:
        """
        Args:
            opened: the prompt holds the opening marker.
            may_open: the answer may begin with it; not so where the prompt holds thinking that is closed.
        """
        self._inner = inner
        self._token_bytes = token_bytes
        self._divider = Divider(markers, opened=opened)
        self._undecided = b""
        self._thinking = opened
        self._begun = False  # something of the answer is there
        start = markers.start.encode()
        self._opening = [t for t, raw in enumerate(token_bytes) if raw == start] if may_open and not opened else []
        self._after = _breaks_after(markers, token_bytes)
        self._breaks: list[int] = []  # those of them that may still come

    @property
    def active(self) -> bool:
        return not self._thinking

    @property
    def finished(self) -> bool:
        return self.active and self._inner.finished

    @property
    def error(self) -> str:
        return self._inner.error

    def settle(self, until: float, *, only_quick: bool = False) -> bool:
        return self._inner.settle(until, only_quick=only_quick)

    def allowed(self, bits: Bits) -> None:
        self._inner.allowed(bits)
        if not self._begun:
            at, free = places([t for t in (*self._opening, *self._breaks[:1]) if t < 32 * len(bits)])
            bits[at] |= free

    def push(self, token_id: int) -> None:
        raw = self._token_bytes[token_id]
        if self._begun:
            self._inner.push(token_id)
        elif self._thinking:
            self._think(raw)
        elif token_id in self._opening:
            self._thinking, self._opening = True, []
            self._think(raw)
        elif token_id in self._breaks[:1]:
            self._breaks = self._breaks[1:]
        else:
            self._begun = True
            self._inner.push(token_id)

    def follow(self) -> None:
        self._inner.follow()

    def _think(self, raw: bytes) -> None:
        self._inner.follow()
        self._undecided += raw
        self._undecided = self._undecided[self._divider.divide(self._undecided).taken :]
        self._thinking = self._divider.thinking
        if not self._thinking:
            self._breaks = self._after


def _breaks_after(markers: ReasoningMarkers, token_bytes: TokenBytes) -> list[int]:
    """The tokens of line breaks that follow the closing marker as the model writes it."""
    end, text = markers.end.encode(), b""
    for index, token in enumerate(markers.closing_ids):
        text += token_bytes[token]
        if end in text:
            return [t for t in markers.closing_ids[index + 1 :] if token_bytes[t] and not token_bytes[t].strip(b"\r\n")]
    return []
