"""A comparison as a picture: what each precision loses, by its size and by its speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from triune_load.report.picture import Panel, picture
from triune_load.report.svg import Line

from .rows import Comparison, Row

_COLOURS = ("one", "two", "good", "bad", "dim", "ink")


def draw(found: Sequence[Comparison]) -> str:
    """The picture, SVG."""
    most = max((max(map(int, row.speeds.keys() - {"prefill"})) for one in found for row in one.rows if row.rounds), default=1)
    panels = [
        _panel("Loss by size", found, "MB on disk", lambda row: row.disk_bytes / 1e6),
        _panel("Loss by speed, one sequence", found, "tokens/s, decoding one sequence", lambda row: _speed(row, "1")),
    ]
    if most > 1:
        several = f"decoding {most} sequences"
        panels.append(
            _panel(f"Loss by speed, {most} sequences", found, f"tokens/s, {several}", lambda row: _speed(row, str(most)))
        )
    models = ", ".join(dict.fromkeys(one.model for one in found))
    about = f"{found[0].target}; {found[0].machine}" if found else ""
    return picture(f"What precisions lose and cost: {models}", about, panels)


def _panel(title: str, found: Sequence[Comparison], x_name: str, x_of: Callable[[Row], float | None]) -> Panel:
    lines = []
    for number, one in enumerate(found):
        dots = [(row.name, x, row.loss * 100) for row in one.ranked if row.loss is not None and (x := x_of(row)) is not None]
        names, xs, losses = zip(*dots, strict=True) if dots else ((), (), ())
        colour = f"var(--{_COLOURS[number % len(_COLOURS)]})"
        lines.append(Line(one.model, xs, losses, colour, dots=True, line=False, labels=names))
    return Panel(title=title, lines=lines, x_name=x_name, y_name="% that perplexity is over the float weights'")


def _speed(row: Row, name: str) -> float | None:
    return row.speeds[name].median if name in row.speeds else None
