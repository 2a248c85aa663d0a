"""A launch's work -> parts that run one after the other: decodes by themselves, everything else packed. Integers only.

Attention over one new token of each sequence has a faster way than over anything else, and its steps have few shapes, so that
they can be recorded; one prompt's chunk among them would lose both. With few of them it costs less to let them run along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runner import Want, Work

_LOGITS = Want.LOGITS  # an enumeration's member is slow to find
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
class Batch:
    """Decodes: single tokens of different slots, each with a row, wanted or not. Arrays [sequences]: there may be hundreds."""

    items: NDArray[np.int64]  # their places in the launch's work, ascending
    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    rows: NDArray[np.int64]  # where the row of each is among those of the launch
    fed: NDArray[np.bool_]
    logits: NDArray[np.bool_]  # whether those are wanted

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Sizes:
    """The most that one part may have."""

    tokens: int
    sequences: int
    rows: int


class Parts(NamedTuple):
    """A launch's work, in the order in which it runs."""

    batches: list[Batch]
    packs: list[tuple[Piece, ...]]  # pieces of different slots
    rows: int  # of the whole launch
    logits: bool  # whether those of any row are wanted


def split(work: Sequence[Work], sizes: Sizes) -> Parts:
    """The parts of a launch."""
    if not work:
        return Parts([], [], 0, False)
    lengths = np.array([len(item.tokens) for item in work])
    made = np.array([item.rows for item in work]) if lengths.max() > 1 else lengths
    logits = np.array([item.wants is _LOGITS or item.scored for item in work])
    ends = made.cumsum()
    # A lone token of a prompt decodes too: a part as long as it has sequences is what attention takes for decodes.
    singles, others = np.flatnonzero(lengths == 1), np.flatnonzero(lengths != 1)
    if len(singles) <= ALONG and len(others):
        others, singles = np.concatenate((singles, others)), singles[:0]
    batches = [
        _batch(singles[at : at + sizes.sequences], work, ends - 1, logits) for at in range(0, len(singles), sizes.sequences)
    ]
    pieces = [piece for n in others.tolist() for piece in _pieces(n, work[n], int(ends[n] - made[n]), sizes)]
    return Parts(batches, list(_packed(pieces, sizes)), int(ends[-1]), bool(logits.any()))


def _batch(items: NDArray[np.int64], work: Sequence[Work], rows: NDArray[np.int64], logits: NDArray[np.bool_]) -> Batch:
    own = work if len(items) == len(work) else [work[item] for item in items.tolist()]
    return Batch(
        items,
        np.array([item.slot for item in own]),
        np.array([item.start for item in own]),
        np.array([item.tokens[0] for item in own]),
        rows[items],
        np.array([item.fed for item in own]),
        logits[items],
    )


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


def _packed(pieces: Sequence[Piece], sizes: Sizes) -> Iterator[tuple[Piece, ...]]:
    """As few parts as the order gives; two pieces of a slot never share one."""
    pack, tokens, rows = list[Piece](), 0, 0
    for piece in pieces:
        full = tokens + len(piece.tokens) > sizes.tokens or rows + piece.rows > sizes.rows or len(pack) == sizes.sequences
        if pack and (full or pack[-1].slot == piece.slot):
            yield tuple(pack)
            pack, tokens, rows = [], 0, 0
        pack.append(piece)
        tokens += len(piece.tokens)
        rows += piece.rows
    if pack:
        yield tuple(pack)
