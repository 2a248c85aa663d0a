"""The result, and comparisons, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.compare import compare
from ..core.units import milliseconds

Json = Mapping[str, Any]


def print_result(result: Json, console: Console | None = None) -> None:
    """The figures of every load, errors, wrong answers, the verdict."""
    console = console or Console()
    target = result["target"]
    console.print(Text(f"{target['model']} over {target['protocol']} at {target['url']}", style="bold"))
    console.print(_loads(result))
    for step in result["steps"]:
        for error in step["figures"]["errors"]:
            console.print(Text(f"{step['load']}: {error['count']} {error['kind']}: {error['example'][:160]}", style="red"))
        for one in step["violations_told"][:5]:
            console.print(Text(f"{step['load']}: {one['check']}: {one['message'][:200]}", style="red"))
        lag = step["tool"]["lag_ms"]
        if lag and step["tool"]["disturbs"]:
            words = f"{step['load']}: this tool started requests {milliseconds(lag['p99'] / 1e3)} ms late at p99"
            console.print(
                Text(
                    f"{words} and took {step['tool']['cpu_share']:.0%} of a processor: its figures are not to be trusted",
                    style="yellow",
                )
            )
    if (full := result["saturation"]) is not None:
        name = "saturation point: " if full["reached"] else "not full yet at: "
        console.print(Text.assemble((name, "dim"), (full["load"], "bold"), (f"  {full['why']}", "dim")))
    _print_verdict(result, console)


def _print_verdict(result: Json, console: Console) -> None:
    verdict = result["verdict"]
    checked = sum(1 for one in result["checks"].values() if one["enabled"])
    asked = sum(step["asked"] for step in result["steps"])
    if verdict["passed"]:
        right = f"{asked:,} answers right by {checked} checks" if checked else f"{asked:,} answers, not checked"
        console.print(Text.assemble(("✓ passed", "bold green"), f"  {right}, {result['repeats_compared']:,} repeats compared"))
        return
    console.print(Text("✗ failed", style="bold red"))
    for reason in verdict["reasons"]:
        console.print(Text(f"  {reason}"))


def _loads(result: Json) -> Table:
    good = any("good_share" in s["figures"] for s in result["steps"])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("load", justify="left")
    for name in (
        "requests",
        "failed",
        "req/s",
        "tokens/s",
        "first token p50",
        "p95",
        "between p50",
        "p95",
        "end to end p50",
        "p95",
    ):
        table.add_column(name, justify="right")
    if good:
        table.add_column("good", justify="right")
    for step in sorted(result["steps"], key=lambda s: float(s["value"])):  # a search goes back and forth
        figures = step["figures"]
        row = [
            step["load"], f"{figures['requests']:,}", f"{figures['failed']:,}", f"{figures['requests_per_s']:.2f}",
            f"{figures['tokens_per_s']:,.1f}",
        ]  # fmt: skip
        for name in ("first_token_ms", "between_ms", "end_to_end_ms"):
            one = figures["latencies"].get(name)
            row += ["–", "–"] if one is None else [milliseconds(one["p50"] / 1e3), milliseconds(one["p95"] / 1e3)]
        table.add_row(*row, *([f"{figures['good_share']:.1%}"] if good else []))
    table.caption = "latencies in ms, from when each request was due"
    table.caption_justify = "left"
    return table


def print_comparison(first: Json, second: Json, console: Console | None = None) -> None:
    """Ratios of two results, second over first."""
    console = console or Console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, side in (("load", "left"), ("figure", "left"), ("A", "right"), ("B", "right"), ("B ÷ A", "right")):
        table.add_column(name, justify="left" if side == "left" else "right")
    table.add_column("95%", justify="right")
    table.add_column("by chance", justify="right")
    table.add_column("")
    for one in compare(first, second):
        words = Text("better", style="green") if one.better else Text("worse", style="red") if one.better is False else Text("")
        between = "" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
        chance = "" if one.chance is None else "< 0.001" if one.chance < 0.001 else f"{one.chance:.3f}"
        table.add_row(
            one.load, one.figure, f"{one.first:,.2f}", f"{one.second:,.2f}", f"{one.ratio:.3f}", between, chance, words
        )
    console.print(table)
