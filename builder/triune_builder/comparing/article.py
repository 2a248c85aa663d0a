"""The article's table of precisions beside what was measured, with the form of each figure explained."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from .rows import Comparison, Row

_ALONE = "1"  # what speeds of one sequence are by


@dataclass(frozen=True)
class Figures:
    """Of a precision beside the float weights; None: not measured."""

    loss: float | None  # a share
    speed: float | None  # times
    saved: float | None  # a share of the memory


ARTICLE = {"bf16": Figures(0.003, 1.1, 0.15), "int4": Figures(0.018, 3.7, 0.75)}


@dataclass(frozen=True)
class Beside:
    """One precision by the article and as measured."""

    name: str
    article: Figures
    here: Figures


def beside(found: Comparison) -> list[Beside]:
    """Those of the article's precisions that were measured; the twin of the float weights must have been, too."""
    base = found.base
    if base is None:
        return []
    return [Beside(row.name, ARTICLE[row.precision], _figures(row, base)) for row in found.ranked if row.precision in ARTICLE]


def forms(found: Comparison) -> list[str]:
    """What each figure is, of the article and here."""
    return [
        "loss: the article says neither in what nor on which texts; here it is perplexity over that of the float weights",
        f"speed: the article says nothing of batches; here it is decoding one sequence, over {found.twin} in the same round",
        f"memory: of the weights' files, below {found.twin}; a process holds libraries and KV slots, too. Sixteen bits for "
        "thirty-two save 50%; four save 75% of sixteen, and 87% of thirty-two",
    ]


def to_json(found: Comparison) -> list[dict[str, Any]]:
    return [asdict(one) for one in beside(found)]


def _figures(row: Row, base: Row) -> Figures:
    return Figures(
        row.loss,
        times(row, base),
        None if not base.disk_bytes else 1 - row.disk_bytes / base.disk_bytes,
    )


def times(row: Row, base: Row) -> float | None:
    """How much faster one sequence is decoded: of each round's two engines, the median of the rounds."""
    if not row.rounds or not base.rounds:
        return None
    return statistics.median(
        ours.tokens_per_s[_ALONE] / theirs.tokens_per_s[_ALONE] for ours, theirs in zip(row.rounds, base.rounds, strict=True)
    )
