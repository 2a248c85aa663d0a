"""A run as a page that needs nothing from elsewhere: memory of each process and latencies, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from triune_load.report.page import page
from triune_load.report.svg import Line as Drawn
from triune_load.report.svg import plot

from .watching import Line, names, row

_COLOURS = (
    "var(--one)",
    "var(--two)",
    "var(--good)",
    "var(--bad)",
    "var(--dim)",
    "var(--ink)",
    "#8a63d2",
    "#2a9d8f",
    "#b58900",
    "#d1495b",
    "#3d5a80",
)
_TITLE = "Soak test"


def draw(lines: Sequence[Line], verdict: Mapping[str, Any]) -> str:
    """The page."""
    good = verdict["verdict"] == "passed"
    told = f"{verdict['minutes']} minutes, {verdict['answered']:,} right answers, {verdict['refused']:,} refused"
    failures = "".join(f"<li>{escape(said)}</li>" for said in verdict["failures"])
    head = f'<div class="verdict{"" if good else " bad"}"><b>{verdict["verdict"]}</b>{told}<ul>{failures}</ul></div>'
    plots = "".join(
        (
            _plot("Memory of each process", "MiB", lines, "memory_mib"),
            _plot("Open descriptors of each process", "descriptors", lines, "descriptors"),
            _plot("Whole requests, median", "s", lines, "p50_s"),
            _plot("Whole requests, p95", "s", lines, "p95_s"),
        )
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{one['growth']:g}</td><td>{one['noise']:g}</td></tr>"
        for name, one in verdict["growth"].items()
    )
    table = f"<table><tr><th>figure</th><th>growth after the warm-up</th><th>noise</th></tr>{rows}</table>"
    return page(_TITLE, f'<h1>{_TITLE}</h1>\n{head}\n<div class="plots">{plots}</div>\n{table}')


def _plot(title: str, unit: str, lines: Sequence[Line], figure: str) -> str:
    found = []
    for number, name in enumerate(names(lines, figure)):
        at, values = row(lines, figure, name)
        found.append(Drawn(name, [seconds / 60 for seconds in at], values, _COLOURS[number % len(_COLOURS)]))
    return plot(title, found, x_name="minutes", y_name=unit)
