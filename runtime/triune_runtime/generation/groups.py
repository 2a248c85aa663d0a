"""Several answers to one prompt: computed once, its KV copied, each answer drawn from the same logits. Integers only."""

from __future__ import annotations

from collections.abc import Sequence as Items

from ..errors import RequestError
from ..manifest import Limits
from ..request import Request
from .scheduler import Move, Slice

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: multiples of it are all different, and far apart


def derived_seed(seed: int, index: int) -> int:
    """The seed of answer `index` to a prompt; answer 0 has the request's own, and so is what it is alone."""
    return (seed + index * _ODD) & _MASK


def check_group(requests: Items[Request], limits: Limits) -> None:
    """Check that a group can be served.

    Raises:
        RequestError: it needs more slots than there are.
    """
    if len(requests) > limits.max_sequences:
        raise RequestError(
            f"{len(requests)} sequences are asked for, but this engine serves {limits.max_sequences} at once",
            f"ask for at most {limits.max_sequences}",
            code="too_many_sequences",
            param="n",
        )


def prompt_copies(parts: Items[Slice]) -> list[Move]:
    """After `parts` have run: the KV of every prompt that is now computed, to the slots of those who wait for it."""
    return [
        Move(part.sequence.slot, sibling.slot, part.start + part.length)
        for part in parts
        if part.samples
        for sibling in part.sequence.siblings
        if part.sequence.slot is not None and sibling.slot is not None
    ]


def sampled(parts: Items[Slice]) -> tuple[list[int], list[int]]:
    """Of every token to be chosen after `parts`: the row of its logits, and the key of its sequence."""
    chosen = [(row, member.key) for row, part in enumerate(parts) if part.samples for member in part.sequence.members]
    return [row for row, _ in chosen], [key for _, key in chosen]
