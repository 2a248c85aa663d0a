"""Cuts a token stream into pieces of exact text. Knows bytes and stop strings; no tokenizer, no thread.

The pieces of an answer, decoded one by one and put end to end, are the whole answer's bytes decoded at once: a piece never
ends inside a character. Text that may be the beginning of a stop string is held back until that is decided.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .vocabulary import TokenBytes


@dataclass(frozen=True, slots=True)
class Cut:
    """Bytes [byte_start, byte_stop) of the concatenated bytes of `token_ids`; `stop_reason`: the stop string that ended it."""

    token_ids: tuple[int, ...]
    byte_start: int
    byte_stop: int
    stop_reason: str | None = None


def render(token_ids: Iterable[int], byte_start: int, byte_stop: int, token_bytes: TokenBytes) -> str:
    """The text of a cut. Bytes that are no UTF-8 become U+FFFD, as in the whole answer."""
    return token_bytes.join(token_ids)[byte_start:byte_stop].decode("utf-8", "replace")


class TextCutter:
    """The text of one answer, token by token."""

    def __init__(self, token_bytes: TokenBytes, stop: Sequence[str] = (), min_tokens: int = 0) -> None:
        """
        Args:
            stop: strings that end the answer; the one that is complete first wins, and is not part of the text.
            min_tokens: stop strings that are complete before this many tokens are ordinary text.
        """
        self._token_bytes = token_bytes
        self._stop = [(s, s.encode()) for s in stop if s]
        self._min_tokens = min_tokens
        self._pushed = 0
        self._tokens: list[int] = []  # those with bytes that are not handed out yet
        self._buffer = b""  # their bytes
        self._start = 0  # of the buffer: handed out already
        self._searched = 0  # of the buffer: no stop string that ends up to here counts
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> Cut | None:
        """Take in a token; the text that is certain now, if any. A cut with a stop reason ends the answer."""
        self._pushed += 1
        new = self._token_bytes[token_id]
        if not new:
            return None
        self._tokens.append(token_id)
        self._buffer += new
        self._utf8.decode(new)
        if self._pushed >= self._min_tokens and (found := self._find_stop()) is not None:
            name, at = found
            return self._take(at, name) or Cut((), 0, 0, name)
        self._searched = len(self._buffer)
        return self._take(self._certain())

    def finish(self) -> Cut | None:
        """All that was held back."""
        return self._take(len(self._buffer))

    def _find_stop(self) -> tuple[str, int] | None:
        """The stop string that is complete first among the new text, and where it begins."""
        best: tuple[int, int, str] | None = None
        for name, wanted in self._stop:
            first = max(self._searched - len(wanted) + 1, self._start)
            at = self._buffer.find(wanted, first)
            if at >= 0 and (best is None or (at + len(wanted), at) < best[:2]):
                best = at + len(wanted), at, name
        return None if best is None else (best[2], best[1])

    def _certain(self) -> int:
        """How far the buffer is whole characters and no beginning of a stop string."""
        end = len(self._buffer)
        whole = end - len(self._utf8.getstate()[0])
        for _, wanted in self._stop:
            for length in range(min(len(wanted) - 1, end - self._start), 0, -1):
                if self._buffer.endswith(wanted[:length]):
                    whole = min(whole, end - length)
                    break
        return whole

    def _take(self, end: int, stop_reason: str | None = None) -> Cut | None:
        """Hand out the buffer up to `end`; keep the tokens that reach beyond it."""
        if end <= self._start:
            return None
        covering, reached = 0, 0
        while reached < end:
            reached += len(self._token_bytes[self._tokens[covering]])
            covering += 1
        cut = Cut(tuple(self._tokens[:covering]), self._start, end, stop_reason)
        kept = covering if reached == end else covering - 1
        dropped = len(self._token_bytes.join(self._tokens[:kept]))
        self._tokens, self._buffer = self._tokens[kept:], self._buffer[dropped:]
        self._start, self._searched = end - dropped, max(self._searched - dropped, 0)
        return cut


def merge(first: Cut, second: Cut) -> Cut:
    """Two neighbouring cuts of one answer as one."""
    if not first.token_ids:
        return second
    # A cut that begins inside a token shares that token with the cut before.
    new = second.token_ids[1:] if second.byte_start else second.token_ids
    length = (first.byte_stop - first.byte_start) + (second.byte_stop - second.byte_start)
    return Cut(first.token_ids + new, first.byte_start, first.byte_start + length, second.stop_reason)
