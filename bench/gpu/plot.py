"""Tokens/s by how many sequences there are at once, as a page that needs nothing from elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from html import escape
from typing import Any

from triune_load.report.page import page
from triune_load.report.svg import Line, plot

_COLOURS = ("var(--one)", "var(--good)", "var(--bad)", "var(--dim)")
_PEER = "var(--two)"


def speeds(title: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        found: by the name of who was measured, figures of `bench.gpu.figures`.
    """
    lines, colours = list[Line](), iter(_COLOURS)
    for name, figures in found.items():
        colour = _PEER if name == "vllm" else next(colours, "var(--ink)")
        by_count = {int(count): statistics.median(one["tokens_per_s"]) for count, one in figures["decode"].items()}
        lines.append(Line(name, list(by_count), list(by_count.values()), colour, dots=True))
    counts = sorted({x for line in lines for x in line.x})
    drawn = plot(title, lines, x_name="sequences at once", y_name="tokens/s", x_ticks=counts)
    return page(title, f"<h1>{escape(title)}</h1>\n{drawn}")
