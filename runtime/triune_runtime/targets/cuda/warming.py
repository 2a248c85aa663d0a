"""Which steps warm-up runs, so that libraries take what they need before the first request. Integers only.

Products depend on how many tokens and rows there are. Attention needs memory by the number of sequences, by the longest chunk
(all are padded to it), and, where few sequences leave multiprocessors idle, by the parts that it cuts a long text into. A step
is largest in one of these at a time, so there is one of each, in every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .parts import Sizes

_LATE = 4096  # tokens before chunks; more, where these are few


class WarmStep(NamedTuple):
    """Chunks of as many sequences, nobody's."""

    chunks: tuple[int, ...]  # tokens of each
    past: int  # tokens before each; fewer where a sequence would get too long
    rows: int


def largest_step(sizes: Sizes, longest: int, tokens: int | None = None) -> WarmStep:
    """As many tokens, sequences and rows as there may be.

    Args:
        longest: tokens of a sequence.
        tokens: at most so many.
    """
    left = min(tokens or sizes.tokens, longest * sizes.sequences)
    whole, rest = divmod(left, longest)
    return WarmStep((longest,) * whole + ((rest,) if rest else ()), 0, min(left, sizes.rows))


def warm_steps(sizes: Sizes, longest: int) -> Iterator[WarmStep]:
    """Steps of all sizes by halves, and of one between two halves, since libraries choose other kernels for it."""
    tokens = sizes.tokens
    while tokens > 1:
        yield largest_step(sizes, longest, tokens)
        if (between := tokens * 3 // 4) > 1:
            yield largest_step(sizes, longest, between)
        count = min(sizes.sequences, tokens // 2)
        even = (tokens // count,) * count
        ragged = (tokens - 2 * (count - 1), *(2,) * (count - 1))  # long chunks are what short ones are padded to
        yield _late((tokens,), sizes, longest)
        yield _late(even, sizes, longest)
        if count > 1:
            yield WarmStep(_capped(even, longest), 0, count)
        if count > 2:
            yield WarmStep(_capped(ragged, longest), 0, count)
            yield _late(ragged, sizes, longest)
        tokens //= 2


def _capped(chunks: tuple[int, ...], longest: int) -> tuple[int, ...]:
    return tuple(min(chunk, longest) for chunk in chunks)


def _late(chunks: tuple[int, ...], sizes: Sizes, longest: int) -> WarmStep:
    """The chunks behind long texts, and a decode: attention then takes other ways, and memory for them."""
    past, chunks = max(_LATE, _LATE * _LATE // sum(chunks)), _capped(chunks, longest)
    if len(chunks) < sizes.sequences and sum(chunks) < sizes.tokens:
        chunks = (*chunks, 1)
    return WarmStep(chunks, past, len(chunks))
