"""A recorded server as a picture: the time that parts of steps take, how many are served, which cores and GPUs are busy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from triune_runtime.recorded import COUNTS

from .recording import Record
from .watching import Sample
from .where import over_time

_WIDTH, _LEFT, _RIGHT, _HIGH, _GAP = 960, 60, 190, 170, 64
_BUCKETS = 160
_SEEN = 0.01  # of a core, that a process's line differs from the axis by
_COLOURS = {
    "launch": "#4269d0", "wait": "#6cc5b0", "sample": "#ff725c", "text": "#efb118", "plan": "#9498a0", "commit": "#a463f2",
    "draft": "#97bbf5", "rest": "#9c6b4e",
}  # fmt: skip
_LINES = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#9c6b4e", "#97bbf5", "#9498a0")
Points = Sequence[tuple[float, float]]  # seconds, value


def picture(records: Sequence[Record], samples: Sequence[Sample], began: int, seconds: float) -> str:
    """SVG.

    Args:
        began: nanoseconds of the monotonic clock.
    """
    parts = list[str]()
    for record in records:
        rows = over_time(record.events, began, seconds, _BUCKETS)
        parts.append(_stacked(f"{record.model}: share of time in parts of steps", rows, seconds, len(parts)))
        counts = [event for event in record.events if event.name == COUNTS]
        lines = {
            name: [((one.began - began) / 1e9, float(one.about[name])) for one in counts] for name in ("decoding", "waiting")
        }
        parts.append(_lined(f"{record.model}: sequences", lines, seconds, len(parts)))
    if samples:
        mean = {name: sum(one.cores.get(name, 0.0) for one in samples) / len(samples) for one in samples for name in one.cores}
        names = [name for name in sorted(mean, key=lambda name: -mean[name]) if mean[name] >= _SEEN][:7]
        cores = {name: [((one.at - began) / 1e9, one.cores.get(name, 0.0)) for one in samples] for name in names}
        cores["others"] = [((one.at - began) / 1e9, one.others) for one in samples]
        parts.append(_lined("busy cores by process", cores, seconds, len(parts)))
    if any(one.gpus for one in samples):
        every = {gpu.index for one in samples for gpu in one.gpus}
        lines = {
            f"GPU {n}": [((s.at - began) / 1e9, g.busy or 0.0) for s in samples for g in s.gpus if g.index == n] for n in every
        }
        parts.append(_lined("share of time that GPUs compute", lines, seconds, len(parts)))
    height = len(parts) * (_HIGH + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _stacked(title: str, rows: Mapping[str, Sequence[float]], seconds: float, row: int) -> str:
    width, bucket_s = (_WIDTH - _LEFT - _RIGHT) / _BUCKETS, seconds / _BUCKETS
    under, drawn, used = [0.0] * _BUCKETS, list[str](), list[str]()
    for name in _COLOURS:
        values = [min(value / bucket_s, 1.0) for value in rows[name]]
        if max(values) < 0.002:
            continue
        used.append(name)
        for place, value in enumerate(values):
            top = min(under[place] + value, 1.0)
            if (high := (top - under[place]) * _HIGH) > 0.05:
                x, y = _LEFT + place * width, (1 - top) * _HIGH
                drawn.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{high:.1f}" fill="{_COLOURS[name]}"/>')
            under[place] = top
    legend = [(name, _COLOURS[name]) for name in used]
    return _framed(title, "".join(drawn), legend, seconds, ("0%", "100%"), row)


def _lined(title: str, lines: Mapping[str, Points], seconds: float, row: int) -> str:
    lines = {name: [(x, y) for x, y in points if 0 <= x <= seconds] for name, points in lines.items()}
    most = max((value for points in lines.values() for _, value in points), default=0.0) or 1.0
    drawn, legend = list[str](), list[tuple[str, str]]()
    for (name, points), colour in zip(lines.items(), _LINES, strict=False):
        at = " ".join(f"{_LEFT + x / seconds * (_WIDTH - _LEFT - _RIGHT):.1f},{(1 - y / most) * _HIGH:.1f}" for x, y in points)
        drawn.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        legend.append((name, colour))
    return _framed(title, "".join(drawn), legend, seconds, ("0", f"{most:.3g}"), row)


def _framed(title: str, body: str, legend: Sequence[tuple[str, str]], seconds: float, ends: tuple[str, str], row: int) -> str:
    right = _WIDTH - _RIGHT
    keys = "".join(
        f'<rect x="{right + 12}" y="{6 + 18 * n}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{right + 28}" y="{15 + 18 * n}">{escape(name[:24])}</text>'
        for n, (name, colour) in enumerate(legend)
    )
    left, foot = _LEFT - 6, _HIGH + 16
    return (
        f'<g transform="translate(0 {row * (_HIGH + _GAP) + 30})">'
        f'<text x="{_LEFT}" y="-10" font-weight="bold">{escape(title)}</text>'
        f'{body}<path d="M{_LEFT},0V{_HIGH}H{right}" fill="none" stroke="#888"/>{keys}'
        f'<text x="{left}" y="{_HIGH}" text-anchor="end">{ends[0]}</text>'
        f'<text x="{left}" y="10" text-anchor="end">{ends[1]}</text>'
        f'<text x="{_LEFT}" y="{foot}">0 s</text><text x="{right}" y="{foot}" text-anchor="end">{seconds:.1f} s</text></g>'
    )
