"""Token id -> bytes, and how a text is made of them: what `tokenizers` decodes the same tokens to, without special ones.

A token's bytes are its text wherever it stands, with two exceptions, and both are facts of the whole text:

- Some decoders take spaces off the beginning of a text: "▁The" is " The", but an answer that begins with it begins with "The".
- A token such as <0xE4> stands for one byte. Such tokens in a row are text only if their bytes together are whole UTF-8; if
  not, every one of them is U+FFFD, even those that would be whole characters by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from ..errors import ManifestError
from .decoder import Spelling, read_decoder

BytesOf = Callable[[int], bytes]
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a decoder takes off the beginning of a text."""

    first: Mapping[int, int] = field(default_factory=dict)  # token -> bytes that it loses where it is the first
    strips: tuple[tuple[bytes, int], ...] = ()  # then a letter, so often at most

    def __bool__(self) -> bool:
        return bool(self.first or self.strips)

    def length(self, first: int, text: bytes) -> int:
        """The bytes that go of a text whose first token is `first`."""
        at = self.first.get(first, 0)
        for letter, most in self.strips:
            for _ in range(most):
                if not text.startswith(letter, at):
                    break
                at += len(letter)
        return at


WHOLE = Beginning()


class TokenBytes(Sequence[bytes]):
    """The bytes of every token; special tokens have none."""

    def __init__(self, table: Iterable[bytes], beginning: Beginning = WHOLE, single: Collection[int] = ()) -> None:
        """
        Args:
            single: tokens that stand for one byte each, and are text only together.
        """
        self._table = tuple(table)
        self.beginning = beginning
        self.single = frozenset(single)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, token_id: int) -> bytes:  # type: ignore[override]  # ids only, no slices
        return self._table[token_id]

    def join(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of several tokens, end to end."""
        return b"".join(self._table[t] for t in token_ids)

    def at_beginning(self, token_id: int) -> bytes:
        """The bytes of a token that is the first of a text."""
        raw = self._table[token_id]
        return raw[self.beginning.length(token_id, raw) :] if self.beginning else raw

    def in_order(self, token_ids: Iterable[int], *, at_beginning: bool = True) -> list[BytesOf]:
        """What gives the bytes of each token, and of those that might have stood in its place.

        Args:
            at_beginning: no token with text comes before these.
        """
        found: list[BytesOf] = []
        for token in token_ids:
            found.append(self.at_beginning if at_beginning else self.__getitem__)
            at_beginning = at_beginning and not self._table[token]
        return found

    def dropped(self, token_ids: Sequence[int]) -> int:
        """The bytes that go off the beginning of these tokens' text."""
        first = next((token for token in token_ids if self._table[token]), None)
        return 0 if first is None or not self.beginning else self.beginning.length(first, self.join(token_ids))

    def text(self, token_ids: Iterable[int], start: int = 0, stop: int | None = None) -> str:
        """Bytes [start, stop) of several tokens as text.

        No row of tokens that are text only together may reach beyond them.
        """
        tokens = list(token_ids)
        raw = self.join(tokens)[start:stop]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            if not self.single:
                return raw.decode("utf-8", "replace")
        return self._text_of_rows(tokens, start, start + len(raw))

    def _text_of_rows(self, tokens: list[int], start: int, stop: int) -> str:
        """See `text`; the slow way, for rows of bytes that are no UTF-8."""
        text, row, at = "", b"", 0
        for token in tokens:
            raw = self._table[token]
            inside = raw[max(start - at, 0) : max(stop - at, 0)]
            at += len(raw)
            if token in self.single:
                row += inside
            elif inside:
                text += _row(row) + inside.decode("utf-8", "replace")
                row = b""
        return text + _row(row)


def token_bytes(tokenizer: Tokenizer, vocab_size: int, shown: Collection[str] = ()) -> TokenBytes:
    """The table of `tokenizer`, padded with empty bytes up to `vocab_size`.

    Args:
        shown: special tokens that have text all the same, such as the markers of thinking.

    Raises:
        ManifestError: the tokenizer's decoder is none that is served.
    """
    spelling = read_decoder(tokenizer)
    hidden = {
        token_id
        for token_id, added in tokenizer.get_added_tokens_decoder().items()
        if added.special and added.content not in shown and not tokenizer.decode([token_id])
    }
    ids = set(tokenizer.get_vocab(with_added_tokens=True).values())
    table = [b""] * max(vocab_size, max(ids, default=-1) + 1)
    first: dict[int, int] = {}
    single: list[int] = []
    letters = _letter_bytes() if spelling.byte_level else {}
    for token_id in sorted(ids - hidden):
        token = tokenizer.id_to_token(token_id)
        if token is None:
            continue
        text = spelling.letters(token)
        if (byte := spelling.byte(text)) is not None:
            table[token_id] = bytes([byte])
            single.append(token_id)
        elif spelling.byte_level and all(c in letters for c in text):
            table[token_id] = bytes(letters[c] for c in text)
        else:
            table[token_id] = text.encode()
            if spelling.space is not None and (lost := _lost(spelling, token)):
                first[token_id] = lost
    return TokenBytes(table, _beginning(spelling, first), single)


def _beginning(spelling: Spelling, first: Mapping[int, int]) -> Beginning:
    strips = tuple((letter.encode(), most) for letter, most in spelling.strips)
    return Beginning(first=first, strips=strips) if first or strips else WHOLE


def _lost(spelling: Spelling, token: str) -> int:
    """How many bytes a token loses where it is the first."""
    text, first = spelling.letters(token), spelling.first_letters(token)
    if not text.endswith(first):
        raise ManifestError(
            f"the tokenizer's token {token!r} cannot be served exactly: at the beginning of a text it loses a space that is "
            "not its own beginning",
            "use a model whose tokenizer keeps its mark for the space at the beginning of tokens",
        )
    return len(text.encode()) - len(first.encode())


def _row(row: bytes) -> str:
    """The text of bytes that are text only together."""
    try:
        return row.decode()
    except UnicodeDecodeError:
        return _NO_TEXT * len(row)


def _letter_bytes() -> dict[str, int]:
    """The printable letter that stands for each byte in byte-level BPE (Radford et al. 2019), inverted."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
