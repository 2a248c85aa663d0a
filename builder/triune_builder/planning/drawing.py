"""The plan as a page that needs nothing from elsewhere: memory by part, throughput by batch."""

from __future__ import annotations

from html import escape

from triune_load.report.page import page
from triune_load.report.scales import Scale, number, ticks
from triune_load.report.svg import Line, Mark, plot

from .hardware import GIB
from .memory import Rank, gib
from .report import Report

_FREE = "kept free"
_PARTS = (
    ("weights", "var(--one)"),
    ("activations", "var(--two)"),
    ("libraries", "var(--dim)"),
    ("KV", "var(--good)"),
    (_FREE, "var(--free)"),
)
_STYLE = """<style>:root { --free: repeating-linear-gradient(135deg, var(--dim) 0 1.5px, var(--paper) 1.5px 5px) }
svg .within { fill: var(--paper); font-weight: 600 } svg .left { stroke: var(--paper); stroke-width: 4px; paint-order: stroke;
  fill: var(--ink); font-weight: 600 }</style>"""
_HATCH = (
    '<defs><pattern id="free" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="1.5" height="5" fill="var(--dim)"/></pattern></defs>'
)
_WIDTH, _LEFT, _ROW, _BAR, _TOP = 1080, 58, 26, 20, 4  # as wide as the page, so that words are as large as elsewhere
_ROOM = _WIDTH - _LEFT - 20
_WORDS = 62  # a part that is narrower has its size in the legend alone


def draw(report: Report) -> str:
    """The page."""
    plan = report.roofline.plan
    title = f"{report.model.name} on {plan.split.gpus} x {plan.gpu.name}"
    speeds = report.speeds()
    batches = [one.batch for one in speeds]
    lines = [
        Line("while all decode", batches, [one.decode for one in speeds], "var(--one)", dots=True),
        Line("prompts included", batches, [one.overall for one in speeds], "var(--two)", dots=True),
    ]
    asked = min(report.load.sequences, batches[-1])
    marks = [Mark(asked, "asked for")]
    drawn = plot("Throughput", lines, x_name="sequences at once", y_name="tokens/s", x_ticks=batches, marks=marks)
    gaps = [Line("between tokens", batches, [one.between * 1e3 for one in speeds], "var(--one)", dots=True)]
    waits = plot("Between tokens", gaps, x_name="sequences at once", y_name="ms", x_ticks=batches)
    about = f"{plan.split} · {plan.precision}, KV {plan.kv_dtype} · {report.roofline.engine.name}"
    head = f'{_STYLE}<h1>{escape(title)}</h1>\n<p class="dim">{escape(about)}</p>'
    return page(title, f'{head}\n{_memory(report)}\n<div class="plots">{drawn}{waits}</div>')


def _memory(report: Report) -> str:
    """A bar for each pipeline stage, as long as the GPU's memory."""
    ranks, whole = report.roofline.plan.ranks, report.roofline.plan.gpu.bytes
    keys = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{name} {_range([_sizes(rank)[part] for rank in ranks])}</span>'
        for part, (name, colour) in enumerate(_PARTS)
    )
    head = f"Memory of a GPU of each stage, {gib(whole)}"
    bars = "".join(_bar(rank, whole, row * _ROW + _TOP) for row, rank in enumerate(ranks))
    bottom = len(ranks) * _ROW + _TOP
    told = f"{_FREE}: a tenth of what weights, activations and libraries leave; KV has nine"
    return (
        f"<figure><figcaption><b>{head}</b>{keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 34}" role="img" aria-label="{head}">{_HATCH}{bars}{_axis(whole, bottom)}</svg>'
        f'<p class="dim">{told}</p></figure>'
    )


def _sizes(rank: Rank) -> tuple[int, ...]:
    """Bytes of each of `_PARTS`."""
    return rank.weights, rank.activations, rank.runtime, rank.room, rank.free


def _range(sizes: list[int]) -> str:
    few, most = gib(min(sizes)), gib(max(sizes))
    return most if few == most else f"{few.removesuffix(' GiB')} to {most}"


def _bar(rank: Rank, whole: int, top: int) -> str:
    at = float(_LEFT)
    found = [f'<text x="{_LEFT - 6}" y="{top + 14}" text-anchor="end">stage {rank.stage}</text>']
    for size, (name, colour) in zip(_sizes(rank), _PARTS, strict=True):
        width = _ROOM * size / whole
        fill, ink = ("url(#free)", "left") if name == _FREE else (colour, "within")
        place = f'x="{at:.1f}" y="{top}" width="{max(width - 1, 0.5):.1f}" height="{_BAR}"'
        found.append(f'<rect {place} fill="{fill}"><title>{name}: {gib(size)}</title></rect>')
        if width > _WORDS:
            found.append(f'<text class="{ink}" x="{at + 6:.1f}" y="{top + 14}">{gib(size)}</text>')
        at += width
    place = f'x="{_LEFT}" y="{top}" width="{_ROOM}" height="{_BAR}"'
    return "".join((*found, f'<rect {place} fill="none" stroke="var(--dim)"/>'))


def _axis(whole: int, top: int) -> str:
    """GiB from 0 to all of a GPU's."""
    scale, found = Scale(0.0, whole / GIB, _LEFT, _LEFT + _ROOM), [f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _ROOM}" '
                                                                    f'y1="{top}" y2="{top}"/>']  # fmt: skip
    for value in ticks(whole / GIB, 8):
        if value <= whole / GIB:
            x = scale(value)
            found.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{top}" y2="{top + 4}"/>')
            found.append(f'<text x="{x}" y="{top + 16}" text-anchor="middle">{number(value)}</text>')
    return "".join((*found, f'<text x="{_LEFT + _ROOM / 2}" y="{top + 30}" text-anchor="middle">GiB</text>'))
