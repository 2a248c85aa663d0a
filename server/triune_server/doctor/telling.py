"""Findings for people and for programs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
_COUNTED = {Verdict.GOOD: "ok", Verdict.UNKNOWN: "not known", Verdict.POOR: "poor", Verdict.BAD: "bad"}
_OF_GPU = re.compile(r"(.*GPU) (\d+)")
_LEAST_SHARE = 0.0005  # of a step, that its part is told from: 0.1%


def table(found: Found) -> Table:
    """A line for each finding, and its remedy below."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for group, findings in found.items():
        made.add_row("", Text(group, "bold"), "")
        for one in _together(findings):
            word, style = _LOOKS[one.verdict]
            said = Text(printable(one.found))
            if one.remedy:
                said.append(f"\n-> {printable(in_place(one.remedy))}", "cyan")
            made.add_row(Text(word, style), Text(printable(one.subject)), said)
    return made


def _together(findings: Sequence[Finding]) -> list[Finding]:
    """What is good and the same of several GPUs becomes one; a remedy names its GPU, and stays apart."""
    numbers: dict[tuple[str, str], list[str]] = {}  # by what subjects begin with, and what was found
    for one in findings:
        if match := _OF_GPU.fullmatch(one.subject):
            numbers.setdefault((match[1], one.found), []).append(match[2])
    told = dict[tuple[str, str], Finding]()
    for one in findings:
        match = _OF_GPU.fullmatch(one.subject)
        same = numbers[match[1], one.found] if match and not one.remedy else []
        subject = f"{match[1]}s {', '.join(same)}" if match and len(same) > 1 else one.subject
        told.setdefault((subject, one.found), replace(one, subject=subject))
    return list(told.values())


def parts_table(model: str, one: Where) -> Table:
    """Where the time of an engine's steps goes."""
    title = f"{model}: {one.steps:,} steps in {one.span_s:.1f} s, {one.idle:.0%} idle, {one.decoding:.1f} sequences together"
    made = Table("part of a step", "", "ms a step", "share", title=title, title_justify="left", title_style="bold")
    for name, words in PHASES.items():
        if one.share(name) >= _LEAST_SHARE:
            made.add_row(name, words, f"{one.parts[name] / one.steps * 1e3:.3f}", f"{one.share(name):.1%}")
    return made


def summary(found: Found) -> str:
    """In one line."""
    counts = Counter(one.verdict for one in _all(found))
    words = [f"{counts[verdict]} {said}" for verdict, said in _COUNTED.items() if counts[verdict]]
    fit = "fit, and could be better" if counts[Verdict.POOR] else "fit" if counts[Verdict.GOOD] else "nothing is known"
    return f"{'unfit: something will not work' if counts[Verdict.BAD] else fit} ({', '.join(words)})"


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
