"""Plots as SVG inside a page: lines, dots, bars. Colours are the page's variables, so they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .scales import Scale, is_wide, number, ticks

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 18, 40


@dataclass(frozen=True)
class Line:
    """A named row of points; None in y is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str = "var(--one)"
    dots: bool = False
    line: bool = True


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
    """A plot of lines over one pair of axes; y begins at 0.

    Args:
        x_ticks: values on the x axis; they make it logarithmic where they are far apart.
        steps: areas from the axis, for counts in each second.
    """
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if y is not None] + [m.at for m in marks if m.horizontal]
    if not xs or not ys:
        return ""
    wide = x_ticks is not None and is_wide(x_ticks)
    at_x = Scale(min(xs) if x_ticks else min(0.0, *xs), max(xs), _LEFT + 8, _WIDTH - _RIGHT - 12, log=wide)
    y_ticks = ticks(max(ys))
    at_y = Scale(0.0, y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    body = [_axes(at_x, at_y, x_ticks or ticks(max(xs), 6), y_ticks, x_name, y_name)]
    body += [_mark(mark, at_x, at_y, row) for row, mark in enumerate(marks)]
    body += [_line(line, at_x, at_y, x_name, y_name, steps) for line in lines]
    return _figure(title, "".join(body), lines if len(lines) > 1 else ())


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
    at_x, y_ticks = Scale(0.0, x_ticks[-1], _LEFT, _WIDTH - _RIGHT), ticks(max(counts))
    at_y = Scale(0.0, y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    body = [_axes(at_x, at_y, x_ticks, y_ticks, x_name, "requests")]
    for n, count in enumerate(counts):
        if count:
            x, y = at_x(n * width), at_y(count)
            told = f"{number(n * width)} to {number((n + 1) * width)}: {count}"
            body.append(
                f'<rect class="bar" x="{x + 0.75}" y="{y}" width="{max(1.0, at_x((n + 1) * width) - x - 1.5):.1f}" '
                f'height="{_HEIGHT - _BOTTOM - y:.1f}" rx="2"><title>{told}</title></rect>'
            )
    body += [_mark(mark, at_x, at_y, row) for row, mark in enumerate(marks)]
    return _figure(title, "".join(body), ())


def _figure(title: str, body: str, legend: Sequence[Line]) -> str:
    keys = "".join(f'<span class="key"><i style="background:{line.colour}"></i>{escape(line.name)}</span>' for line in legend)
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg></figure>'
    )


def _axes(at_x: Scale, at_y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> str:
    bottom = _HEIGHT - _BOTTOM
    found = []
    for value in y_ticks:
        y = at_y(value)
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{number(value)}</text>')
    last = -100.0
    for value in x_ticks:
        x = at_x(value)
        if value > at_x.high * 1.0001 or x - last < 26:
            continue
        last = x
        found.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
        found.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
    found.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    found.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    found.append(f'<text x="{_LEFT - 50}" y="{_TOP - 7}">{escape(y_name)}</text>')
    return "".join(found)


def _mark(mark: Mark, at_x: Scale, at_y: Scale, row: int) -> str:
    if mark.horizontal:
        y = at_y(mark.at)
        place = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"'
        return f'<line class="mark" {place}/><text class="told" x="{_LEFT + 8}" y="{y - 5}">{escape(mark.words)}</text>'
    x = at_x(mark.at)
    left = x > (_LEFT + _WIDTH) * 0.6
    anchor, shift = ("end", -6) if left else ("start", 6)
    return (
        f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
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
            bottom = _HEIGHT - _BOTTOM
            found.append(
                f'<path d="{path}L{points[-1][0]},{bottom}L{points[0][0]},{bottom}Z" fill="{line.colour}" opacity=".14"/>'
            )
        found.append(f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="2" stroke-linejoin="round"/>')
    if line.dots:
        radius = 4 if line.line else 2
        for px, py, x, y in points:
            words = f"{line.name}: {number(y)} {y_name} at {number(x)} {x_name}"
            title = f"<title>{escape(words)}</title>"
            opacity = "" if line.line else ' opacity=".55"'
            found.append(f'<circle cx="{px}" cy="{py}" r="{radius}" fill="{line.colour}"{opacity}>{title}</circle>')
    return "".join(found)
