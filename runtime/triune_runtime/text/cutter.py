"""Cuts a token stream into pieces of exact text. Knows bytes, stop strings and thinking; no tokenizer, no thread.

The pieces of an answer, decoded one by one and put end to end, are the whole answer's tokens decoded at once: a piece never
ends inside a character. Text that may be the beginning of a stop string, or of what divides thinking from answer, is held
back until that is decided. Stop strings are looked for in the whole text, thinking and markers included, as vLLM does.

Tokens of single bytes are text only together (see `vocabulary`), so a row of them is held back until another token ends it.
Until then its text counts as what it would be if nothing followed: a stop string that it completes ends the answer at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from .cut import Cut
from .reasoning import Divider
from .vocabulary import TokenBytes

_NO_TEXT = b"\xff"  # in no UTF-8


def render(token_ids: Iterable[int], byte_start: int, byte_stop: int, token_bytes: TokenBytes) -> str:
    """The text of a cut. Bytes that are no UTF-8 become U+FFFD, as in the whole answer."""
    return token_bytes.text(token_ids, byte_start, byte_stop)


class TextCutter:
    """The text of one answer, token by token."""

    def __init__(
        self,
        token_bytes: TokenBytes,
        stop: Sequence[str] = (),
        min_tokens: int = 0,
        divider: Divider | None = None,
        *,
        continues: bool = False,
    ) -> None:
        """
        Args:
            stop: strings that end the answer; the one that is complete first wins, and is not part of the text.
            min_tokens: stop strings that are complete before this many tokens are ordinary text.
            divider: keeps thinking apart; without one, all is one text.
            continues: the text goes on with another, so that nothing is taken off its beginning.
        """
        self._token_bytes = token_bytes
        self._stop = [(s, s.encode()) for s in stop if s]
        self._min_tokens = min_tokens
        self._divider = divider
        self._unbroken = not (self._stop or divider or token_bytes.single)  # whole characters can go out as they come
        self._pushed = 0
        self._tokens: list[int] = []  # those with bytes that are not handed out yet
        self._buffer = b""  # their bytes
        self._start = 0  # of the buffer: handed out already
        self._searched = 0  # of the buffer: no stop string that ends up to here counts
        self._row = 0  # bytes at the buffer's end that are text only together, and may become more
        self._begun = continues or not token_bytes.beginning  # where the text begins is decided
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, *token_ids: int) -> Cut | None:
        """Take in tokens; the text that is certain now, if any. A cut with a stop reason ends the answer.

        Where there are stop strings, the token that completes one must be the last of `token_ids`.
        """
        new = b"".join([self._token_bytes[token] for token in token_ids])
        self._pushed += len(token_ids)
        if not new:
            return None
        if self._unbroken and self._begun and not self._buffer and new.isascii():  # nearly always; the same as below, and short
            return Cut(token_ids if len(token_ids) == 1 else self._with_text(token_ids), 0, len(new))
        tokens = self._with_text(token_ids)
        self._tokens += tokens
        if self._token_bytes.single:
            self._add_rows(tokens)
        else:
            self._buffer += new
            self._utf8.decode(new)
        if not self._begun:
            self._begin()
        if self._row and not _is_text(self._buffer[-self._row :]):
            self._searched = max(self._searched, len(self._buffer) - self._row)
            return self._take(self._certain())
        if self._stop and self._pushed >= self._min_tokens and (found := self._find_stop()) is not None:
            name, at = found
            return self._take(at, name, last=True) or Cut((), 0, 0, name)
        self._searched = len(self._buffer)
        return self._take(self._certain())

    def finish(self) -> Cut | None:
        """All that was held back."""
        self._end_row()
        if not self._begun:
            self._begin()
        return self._take(len(self._buffer), last=True)

    def _with_text(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        return tuple([token for token in token_ids if self._token_bytes[token]])

    def _add_rows(self, tokens: Sequence[int]) -> None:
        """Add tokens to the buffer where some are text only together."""
        for token in tokens:
            if token in self._token_bytes.single:
                self._row += 1
            else:
                self._end_row()
            self._buffer += self._token_bytes[token]

    def _end_row(self) -> None:
        """Nothing more belongs to the row. Of one that is no text, every byte is made one that is no text by itself either."""
        if self._row and not _is_text(self._buffer[-self._row :]):
            self._buffer = self._buffer[: -self._row] + _NO_TEXT * self._row
        self._row = 0

    def _begin(self) -> None:
        """Leave out what is not text at the beginning, as far as it is there yet."""
        row = self._row and not _is_text(self._buffer[-self._row :])
        text = self._buffer[: -self._row] if row else self._buffer
        self._start = self._token_bytes.beginning.length(self._tokens[0], text) if self._tokens else 0
        self._begun = self._whole() > self._start

    def _whole(self) -> int:
        """How far the buffer is whole characters, whatever follows."""
        return len(self._buffer) - (self._row or len(self._utf8.getstate()[0]))

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
        end, whole = len(self._buffer), self._whole()
        for _, wanted in self._stop:
            at = max(end - len(wanted) + 1, self._start)
            while (at := self._buffer.find(wanted[:1], at)) >= 0:
                if wanted.startswith(self._buffer[at:]):
                    whole = min(whole, at)
                    break
                at += 1
        return whole

    def _take(self, end: int, stop_reason: str | None = None, *, last: bool = False) -> Cut | None:
        """Hand out the buffer up to `end`, or as far as the divider is certain; keep the tokens that reach beyond it."""
        begin, border = self._start, None
        if self._divider is not None:
            found = self._divider.divide(self._buffer[begin:end], last=last)
            border = begin + found.border[0], begin + found.border[1]
            begin, end = begin + found.skipped, begin + found.taken
        if end <= self._start:
            return None
        first, kept = self._covering(begin), self._covering(end)
        cut = self._cut(first, begin, end, stop_reason, border) if begin < end else None
        self._drop(*kept, end)
        return cut

    def _covering(self, at: int) -> tuple[int, int]:
        """The token that holds byte `at` of the buffer, as its index, and where its own bytes begin."""
        index = begins = 0
        while index < len(self._tokens) and begins + len(self._token_bytes[self._tokens[index]]) <= at:
            begins += len(self._token_bytes[self._tokens[index]])
            index += 1
        return index, begins

    def _cut(
        self, first: tuple[int, int], begin: int, end: int, stop_reason: str | None, border: tuple[int, int] | None
    ) -> Cut:
        index, offset = first
        tokens: list[int] = []
        thinking, reached = 0, offset
        while reached < end:
            tokens.append(self._tokens[index + len(tokens)])
            thinking += border is not None and begin <= reached < border[0]
            reached += len(self._token_bytes[tokens[-1]])
        shifted = None if border is None else (border[0] - offset, border[1] - offset)
        return Cut(tuple(tokens), begin - offset, end - offset, stop_reason, shifted, thinking)

    def _drop(self, index: int, dropped: int, end: int) -> None:
        """Forget the tokens before `index`, which are `dropped` bytes; the buffer is handed out up to `end`."""
        self._tokens, self._buffer = self._tokens[index:], self._buffer[dropped:]
        self._start, self._searched = end - dropped, max(self._searched - dropped, 0)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
