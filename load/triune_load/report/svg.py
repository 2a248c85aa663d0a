"""Plots as SVG inside a page: lines, dots, bars. Colours are the page's variables, so they follow light and dark.

`picture.py` makes files of their own of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .scales import Scale, is_wide, number, ticks

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 18, 40
_LETTER, _LABEL = 7.5, 13  # about the size of a label's letters
_BEFORE = {"start": 0.0, "middle": 0.5, "end": 1.0}  # how much of a text lies left of where it is anchored


@dataclass(frozen=True)
class Line:
    """A named row of points; None in y is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str = "var(--one)"
    dots: bool = False
    line: bool = True
    labels: Sequence[str] = ()  # of the dots


@dataclass(frozen=True)
class Mark:
    """A line across the plot with words at it: at an x, or at a y."""

    at: float
    words: str
    horizontal: bool = False


def plot(
    title: str, lines: Sequence[Line], *, x_name: str, y_name: str, marks: Sequence[Mark] = (),
    x_ticks: Sequence[float] | None = None, steps: bool = False,
) -> str:  # fmt: skip
    """A plot of lines over one pair of axes; y begins at 0, or below where values do.

    Args:
        x_ticks: values on the x axis; they make it logarithmic where they are far apart.
        steps: areas from the axis, for counts in each second.
    """
    body = plot_body(lines, x_name=x_name, y_name=y_name, marks=marks, x_ticks=x_ticks, steps=steps)
    return _figure(title, body, lines if len(lines) > 1 else ()) if body else ""


def plot_body(
    lines: Sequence[Line], *, x_name: str, y_name: str, marks: Sequence[Mark] = (), x_ticks: Sequence[float] | None = None,
    steps: bool = False,
) -> str:  # fmt: skip
    """What `plot` has inside its frame; empty where there is nothing to show."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if y is not None] + [m.at for m in marks if m.horizontal]
    if not xs or not ys:
        return ""
    wide = x_ticks is not None and is_wide(x_ticks)
    at_x = Scale(min(xs) if x_ticks else min(0.0, *xs), max(xs), _LEFT + 8, WIDTH - _RIGHT - 12, log=wide)
    lowest, highest = min(0.0, *ys), max(0.0, *ys)
    step = ticks(max(highest, -lowest))[1]
    y_ticks = [step * n for n in range(math.floor(lowest / step + 1e-9), max(1, math.ceil(highest / step - 1e-9)) + 1)]
    at_y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    body = [_axes(at_x, at_y, x_ticks or ticks(max(xs), 6), y_ticks, x_name, y_name)]
    body += [_mark(mark, at_x, at_y, row) for row, mark in enumerate(marks)]
    body += [_line(line, at_x, at_y, x_name, y_name, steps) for line in lines]
    dots = [dot for line in lines for dot in zip(line.x, line.y, line.labels, strict=bool(line.labels))]
    body += _labels([(at_x(x), at_y(y), label) for x, y, label in dots if y is not None])
    return "".join(body)


def histogram(title: str, values: Sequence[float], *, x_name: str, marks: Sequence[Mark] = (), bins: int = 36) -> str:
    """How often values are how large."""
    if not values:
        return ""
    ranked = sorted(values)
    most = ranked[min(len(ranked) - 1, int(len(ranked) * 0.995))] or 1.0  # a few far ones would flatten the rest
    x_ticks = ticks(most, 6)
    width = x_ticks[-1] / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value / width)))] += 1
    at_x, y_ticks = Scale(0.0, x_ticks[-1], _LEFT, WIDTH - _RIGHT), ticks(max(counts))
    at_y = Scale(0.0, y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    body = [_axes(at_x, at_y, x_ticks, y_ticks, x_name, "requests")]
    for n, count in enumerate(counts):
        if count:
            x, y = at_x(n * width), at_y(count)
            told = f"{number(n * width)} to {number((n + 1) * width)}: {count}"
            body.append(
                f'<rect class="bar" x="{x + 0.75}" y="{y}" width="{max(1.0, at_x((n + 1) * width) - x - 1.5):.1f}" '
                f'height="{HEIGHT - _BOTTOM - y:.1f}" rx="2"><title>{told}</title></rect>'
            )
    body += [_mark(mark, at_x, at_y, row) for row, mark in enumerate(marks)]
    return _figure(title, "".join(body), ())


def _figure(title: str, body: str, legend: Sequence[Line]) -> str:
    keys = "".join(f'<span class="key"><i style="background:{line.colour}"></i>{escape(line.name)}</span>' for line in legend)
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{keys}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg></figure>'
    )


def _axes(at_x: Scale, at_y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> str:
    bottom = HEIGHT - _BOTTOM
    found = []
    for value in y_ticks:
        y = at_y(value)
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{number(value)}</text>')
    last = -100.0
    for value in x_ticks:
        x = at_x(value)
        if value > at_x.high * 1.0001 or x - last < 26:
            continue
        last = x
        found.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
        found.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
    found.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    found.append(f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    found.append(f'<text x="{_LEFT - 50}" y="{_TOP - 7}">{escape(y_name)}</text>')
    return "".join(found)


def _mark(mark: Mark, at_x: Scale, at_y: Scale, row: int) -> str:
    if mark.horizontal:
        y = at_y(mark.at)
        place = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"'
        return f'<line class="mark" {place}/><text class="told" x="{_LEFT + 8}" y="{y - 5}">{escape(mark.words)}</text>'
    x = at_x(mark.at)
    left = x > (_LEFT + WIDTH) * 0.6
    anchor, shift = ("end", -6) if left else ("start", 6)
    return (
        f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="told" x="{x + shift}" y="{_TOP + 10 + 14 * row}" text-anchor="{anchor}">{escape(mark.words)}</text>'
    )


def _line(line: Line, at_x: Scale, at_y: Scale, x_name: str, y_name: str, steps: bool) -> str:
    points = [(at_x(x), at_y(y), x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    if not points:
        return ""
    found = []
    if line.line:
        path = "M" + "L".join(f"{px},{py}" for px, py, _, _ in points)
        if steps:
            bottom = HEIGHT - _BOTTOM
            found.append(
                f'<path d="{path}L{points[-1][0]},{bottom}L{points[0][0]},{bottom}Z" fill="{line.colour}" opacity=".14"/>'
            )
        found.append(f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="2" stroke-linejoin="round"/>')
    if line.dots:
        marked = line.line or bool(line.labels)
        radius = 4 if marked else 2
        for px, py, x, y in points:
            words = f"{line.name}: {number(y)} {y_name} at {number(x)} {x_name}"
            title = f"<title>{escape(words)}</title>"
            opacity = "" if marked else ' opacity=".55"'
            found.append(f'<circle cx="{px}" cy="{py}" r="{radius}" fill="{line.colour}"{opacity}>{title}</circle>')
    return "".join(found)


def _labels(dots: Sequence[tuple[float, float, str]]) -> list[str]:
    """Words at dots (x, y, words), each on the first side of its dot where it covers no other dot and no other words."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in dots]
    found = []
    for x, y, words in dots:
        wide = _LETTER * len(words)
        sides = [(x + 8, y + 4, "start"), (x - 8, y + 4, "end"), (x, y - 9, "middle"), (x, y + 18, "middle")]
        sides += [(x + 8, y - 8, "start"), (x - 8, y - 8, "end"), (x + 8, y + 17, "start"), (x - 8, y + 17, "end")]
        lefts = [at - _BEFORE[anchor] * wide for at, _, anchor in sides]
        boxes = [(left, base - _LABEL + 3, left + wide, base + 3) for left, (_, base, _) in zip(lefts, sides, strict=True)]
        number = next((n for n, box in enumerate(boxes) if _is_free(box, taken)), 0)
        taken.append(boxes[number])
        at, base, anchor = sides[number]
        found.append(f'<text class="told" x="{at:.1f}" y="{base:.1f}" text-anchor="{anchor}">{escape(words)}</text>')
    return found


def _is_free(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> bool:
    left, top, right, bottom = box
    inside = left >= _LEFT and right <= WIDTH and top >= 0 and bottom <= HEIGHT - _BOTTOM
    return inside and not any(left < x2 and right > x1 and top < y2 and bottom > y1 for x1, y1, x2, y2 in taken)
