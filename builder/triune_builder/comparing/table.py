"""A comparison as tables for people: what each precision loses, what it costs, and the article's figures beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .article import Beside, Figures, beside, forms
from .rows import PREFILL, Comparison, Row

T = TypeVar("T")
_MB = 1e6
_ARTICLE_COLUMNS = ("precision", "loss", "article", "speed", "article", "memory saved", "article")
_MUCH = 0.25  # spread of speeds beyond which they compare badly


def tables(found: Comparison) -> Group:
    """All of it."""
    return Group(*_parts(found))


def _parts(found: Comparison) -> Iterator[RenderableType]:
    yield Text(f"{found.model} for {found.target}, {found.machine}", style="bold")
    yield _losses(found)
    if any(row.rounds for row in found.rows):
        yield _costs(found)
    if spread := max((row.spread or 0.0 for row in found.rows), default=0.0):
        yield Text(_spread(spread), style="dim")
    if others := beside(found):
        table = _table("beside the article's figures", _ARTICLE_COLUMNS)
        for one in others:
            table.add_row(one.name, *_paired(one))
        yield table
        yield Text("\n".join(f"  {line}" for line in forms(found)), style="dim")
    for row in found.ranked:
        if row.failed:
            yield Text(f"{row.name}: {row.failed}")
        elif row.over:
            yield Text(f"{row.name} is over its budget, `triune build` would not publish it: {'; '.join(row.over)}")


def _losses(found: Comparison) -> Table:
    measured = [row for row in found.ranked if row.found]
    own = list(dict.fromkeys(text.name for row in measured for text in row.texts))
    worst, scored = any(row.worst for row in measured), any(row.score for row in measured)
    columns = ["precision", "perplexity", *own, *(["worst kind"] if worst else []), "KL\nnats", "greedy\ntokens",
               *(["problems\nright"] if scored else []), ""]  # fmt: skip
    table = _table("what it loses, against the float weights", columns)
    for row in found.ranked:
        ratios = {text.name: text.ratio for text in row.texts}
        table.add_row(
            row.name,
            _shown(row.loss, _loss),
            *(_shown(ratios.get(kind), lambda ratio: _loss(ratio - 1)) for kind in own),
            *([_shown(row.worst, lambda text: f"{_loss(text.ratio - 1)} {text.name}")] if worst else []),
            _shown(row.mean_kl, lambda value: f"{value:.1g}"),
            _shown(row.greedy, lambda share: f"{share:.1%}"),
            *([_shown(row.score, lambda score: f"{score.share:.1%}")] if scored else []),
            "failed" if row.failed else "over" if row.over else "",
        )
    return table


def _costs(found: Comparison) -> Table:
    decodes = _decodes(found)
    columns = ["precision", *(f"decode\n{name}" for name in decodes), PREFILL, "spread", "memory\nMB", "peak\nMB",
               "disk\nMB", "build\ns"]  # fmt: skip
    title = "what it costs: tokens/s by sequences at once"
    table = _table(title + (f", medians of {found.rounds} rounds" if found.rounds > 1 else ""), columns)
    for row in found.ranked:
        if row.rounds:
            table.add_row(
                row.name,
                *(f"{row.speeds[name].median:,.0f}" for name in (*decodes, PREFILL)),
                _shown(row.spread, lambda share: f"{share:.0%}"),
                *(_shown(spread, lambda value: f"{value.median / _MB:,.0f}") for spread in (row.memory, row.peak)),
                f"{row.disk_bytes / _MB:,.1f}",
                f"{row.build_s:,.1f}",
            )
    return table


def _spread(share: float) -> str:
    told = f"  spread: from the slowest round to the fastest, of the median; at most {share:.0%} here"
    if share <= _MUCH:
        return told
    return f"{told}, which is much:\n  something else is busy on this machine; the speeds say little until it is not"


def _decodes(found: Comparison) -> list[str]:
    """By how many sequences speeds are named, in order."""
    return sorted({name for row in found.rows for name in row.speeds if name != PREFILL}, key=int)


def _paired(one: Beside) -> list[str]:
    """What was measured, and what the article says, by turns."""
    return [cell for pair in zip(_cells(one.here), _cells(one.article), strict=True) for cell in pair]


def _cells(one: Figures) -> tuple[str, str, str]:
    return (
        _shown(one.loss, _loss),
        _shown(one.speed, lambda times: f"{times:.2f}x"),
        _shown(one.saved, lambda share: f"{share:.0%}"),
    )


def _loss(share: float) -> str:
    return f"{round(share, 4) + 0.0:+.2%}"  # no -0.00%


def _shown(value: T | None, words: Callable[[T], str]) -> str:
    return "" if value is None else words(value)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column else "left", overflow="fold", no_wrap=not number)
    return table


def markdown(found: Comparison) -> str:
    """The figures as a page has them: what was measured, and the article's beside it."""
    decodes, scored = _decodes(found), any(row.score for row in found.rows)
    head = ["precision", "perplexity", "worst kind of text", "KL, nats", "greedy", *(["problems"] if scored else []),
            *(f"decode {name}" for name in decodes), PREFILL, "memory", "disk", "build"]  # fmt: skip
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *(_cells_of(row, decodes, scored) for row in found.ranked if row.found)]
    spread = max((row.spread or 0.0 for row in found.rows), default=0.0)
    about = f"{found.model} for {found.target}, {found.machine}; tokens/s and memory are medians of {found.rounds} rounds"
    told = [f"{about}, speeds spread by {spread:.0%} at most:", "", *map(_line, lines)]
    if others := beside(found):
        told += ["", _line([found.model, *_ARTICLE_COLUMNS[1:]]), _line(["---", *["--:"] * (len(_ARTICLE_COLUMNS) - 1)])]
        told += [_line([one.name, *_paired(one)]) for one in others]
    return "\n".join(told)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells_of(row: Row, decodes: Sequence[str], scored: bool) -> list[str]:
    return [
        row.name,
        _shown(row.loss, _loss),
        _shown(row.worst, lambda text: f"{_loss(text.ratio - 1)}, {text.name}"),
        _shown(row.mean_kl, lambda value: f"{value:.2g}"),
        _shown(row.greedy, lambda share: f"{share:.1%}"),
        *([_shown(row.score, lambda score: f"{score.share:.1%}")] if scored else []),
        *(_shown(row.speeds.get(name), lambda spread: f"{spread.median:,.0f}") for name in (*decodes, PREFILL)),
        _shown(row.memory, lambda value: f"{value.median / _MB:,.0f} MB"),
        f"{row.disk_bytes / _MB:,.1f} MB",
        f"{row.build_s:,.0f} s",
    ]
