"""Plots as one SVG file, for pages that are none of ours. Colours are those of light pages: not every viewer has variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .page import LIGHT, PLOTS
from .svg import HEIGHT, WIDTH, Line, plot_body

_HEAD, _TITLE = 52, 26  # above the plots, and above each
_FONT = "system-ui, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot; see `svg.plot`."""

    title: str
    lines: Sequence[Line]
    x_name: str
    y_name: str


def picture(title: str, about: str, panels: Sequence[Panel]) -> str:
    """The plots one below the other, each with its legend where it has several lines."""
    drawn = [(panel, plot_body(panel.lines, x_name=panel.x_name, y_name=panel.y_name)) for panel in panels]
    drawn = [(panel, body) for panel, body in drawn if body]
    height = _HEAD + len(drawn) * (_TITLE + HEIGHT) + 8
    parts = "".join(_panel(panel, body, _HEAD + number * (_TITLE + HEIGHT)) for number, (panel, body) in enumerate(drawn))
    style = f"{PLOTS} text.head {{ font-size: 15px }} text.head, text.name {{ font-weight: 600; fill: var(--ink) }}"
    whole = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><style>{style}</style><rect width="100%" height="100%" fill="var(--paper)"/>'
        f'<text class="head" x="12" y="22">{escape(title)}</text><text x="12" y="40">{escape(about)}</text>{parts}</svg>\n'
    )
    whole = whole.replace("system-ui, sans-serif", _FONT)
    return re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], whole)


def _panel(panel: Panel, body: str, top: int) -> str:
    keys, x = [], WIDTH - 16.0
    for line in reversed(panel.lines if len(panel.lines) > 1 else ()):
        x -= 7.0 * len(line.name)
        keys.append(f'<text x="{x:.0f}" y="15">{escape(line.name)}</text>')
        keys.append(f'<rect x="{x - 15:.0f}" y="6" width="10" height="10" rx="2" fill="{line.colour}"/>')
        x -= 29
    name = f'<text class="name" x="12" y="15">{escape(panel.title)}</text>'
    return f'<g transform="translate(0 {top})">{name}{"".join(keys)}<g transform="translate(0 {_TITLE})">{body}</g></g>'
