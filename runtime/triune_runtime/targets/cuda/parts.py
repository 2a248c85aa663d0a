"""A launch's work -> parts that run one after the other: decodes by themselves, everything else packed. Integers only.

Attention over one new token of each sequence has a faster way than over anything else, and its steps have few shapes, so that
they can be recorded; one prompt's chunk among them would lose both. With few of them it costs less to let them run along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...runner import Want, Work

ALONG = 4  # so many decodes run along with prompts


class Piece(NamedTuple):
    """Tokens of one item that run together."""

    item: int  # its place in the launch's work
    slot: int
    start: int
    tokens: tuple[int, ...]
    first: int  # where its rows begin among those of the launch
    rows: int  # that it makes: after its last tokens
    wants: Want
    fed: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Pieces of different slots."""

    pieces: tuple[Piece, ...]
    decodes: bool  # one token and one row each, wanted or not


@dataclass(frozen=True)
class Sizes:
    """The most that one part may have."""

    tokens: int
    sequences: int
    rows: int


def split(work: Sequence[Work], sizes: Sizes) -> list[Part]:
    """The parts of a launch."""
    singles, others, first = list[Piece](), list[Piece](), 0
    for number, item in enumerate(work):
        for piece in _pieces(number, item, first, sizes):
            # A lone token of a prompt decodes too: a part as long as it has sequences is what attention takes for decodes.
            (singles if len(item.tokens) == 1 else others).append(piece)
        first += item.rows
    if len(singles) <= ALONG and others:
        others, singles = singles + others, []
    decodes = [Part(tuple(singles[at : at + sizes.sequences]), decodes=True) for at in range(0, len(singles), sizes.sequences)]
    return [*decodes, *_packed(others, sizes)]


def _pieces(number: int, item: Work, first: int, sizes: Sizes) -> Iterator[Piece]:
    """An item, cut where it has more tokens or rows than a part may have."""
    made = 0 if item.wants is Want.NOTHING and not item.scored else item.rows
    begin, length = 0, len(item.tokens)
    while begin < length:
        stop = min(begin + sizes.tokens, length)
        before = length - made  # tokens without a row
        row = max(begin, before)  # the first token with one, if this piece has any
        stop = min(stop, row + sizes.rows)
        yield Piece(
            item=number,
            slot=item.slot,
            start=item.start + begin,
            tokens=item.tokens[begin:stop],
            first=first + row - before,
            rows=max(0, stop - row),
            wants=Want.LOGITS if item.scored else item.wants,
            fed=item.fed and stop == length,
        )
        begin = stop


def _packed(pieces: Sequence[Piece], sizes: Sizes) -> Iterator[Part]:
    """As few parts as the order gives; two pieces of a slot never share one."""
    pack, tokens, rows = list[Piece](), 0, 0
    for piece in pieces:
        full = tokens + len(piece.tokens) > sizes.tokens or rows + piece.rows > sizes.rows or len(pack) == sizes.sequences
        if pack and (full or pack[-1].slot == piece.slot):
            yield Part(tuple(pack), decodes=False)
            pack, tokens, rows = [], 0, 0
        pack.append(piece)
        tokens += len(piece.tokens)
        rows += piece.rows
    if pack:
        yield Part(tuple(pack), decodes=False)
