"""Findings for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from triune_runtime.command_line import in_place, printable

from .finding import Finding, Verdict
from .where import PHASES, Where

UNFIT = 4  # exit code where something will not work
Found = Mapping[str, Sequence[Finding]]
_LOOKS = {
    Verdict.GOOD: ("ok", "green"),
    Verdict.UNKNOWN: ("?", "dim"),
    Verdict.POOR: ("poor", "yellow"),
    Verdict.BAD: ("BAD", "bold red"),
}


def table(found: Found) -> Table:
    """A line for each finding, and its remedy below."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for group, findings in found.items():
        made.add_row("", Text(group, "bold"), "")
        for one in findings:
            word, style = _LOOKS[one.verdict]
            said = Text(printable(one.found))
            if one.remedy:
                said.append(f"\n-> {printable(in_place(one.remedy))}", "cyan")
            made.add_row(Text(word, style), Text(printable(one.subject)), said)
    return made


def parts_table(model: str, one: Where) -> Table:
    """Where the time of an engine's steps goes."""
    title = f"{model}: {one.steps:,} steps in {one.span_s:.1f} s, {one.idle:.0%} idle, {one.decoding:.1f} sequences together"
    made = Table("part of a step", "", "ms a step", "share", title=title, title_justify="left", title_style="bold")
    for name, words in PHASES.items():
        if name in one.parts and one.steps:
            made.add_row(name, words, f"{one.parts[name] / one.steps * 1e3:.3f}", f"{one.share(name):.1%}")
    return made


def summary(found: Found) -> str:
    """In one line."""
    counts = Counter(one.verdict for one in _all(found))
    words = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    fit = (
        "unfit: something will not work"
        if counts[Verdict.BAD]
        else "fit" + (", and could be better" if counts[Verdict.POOR] else "")
    )
    return f"{fit} ({', '.join(words)})"


def as_json(found: Found) -> dict[str, Any]:
    """For programs."""
    return {
        "fit": exit_code(found) == 0,
        "counts": Counter(one.verdict for one in _all(found)),
        "findings": [{"group": group, **one.as_json()} for group, findings in found.items() for one in findings],
    }


def exit_code(found: Found) -> int:
    """0, or UNFIT."""
    return UNFIT if any(one.verdict is Verdict.BAD for one in _all(found)) else 0


def _all(found: Found) -> Iterable[Finding]:
    return (one for findings in found.values() for one in findings)
