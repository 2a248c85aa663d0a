"""Results as a table for people and as files for later. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .timing import Round, median_round, ratio

NAMES = {
    "server": "full server, gRPC",
    "bare": "bare runtime loop",
    "openvino": "OpenVINO GenAI",
    "llamacpp": "llama.cpp server",
}
Results = dict[str, dict[int, dict[int, Round]]]  # subject -> streams -> number of the round
COLUMNS = ("subject", "streams", "tokens/s", "server ÷ it", "first token, ms (p95)", "between tokens, ms (p95)")
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"


def medians(results: Results) -> dict[str, dict[int, Round]]:
    """The median of every figure over the rounds."""
    return {
        name: {n: median_round(list(rounds.values())) for n, rounds in counts.items()}
        for name, counts in results.items()
        if counts
    }


def ratios(results: Results) -> dict[str, dict[int, float | None]]:
    """The server's throughput over every other subject's, by number of streams."""
    server = results.get("server", {})
    return {
        name: {n: ratio(server.get(n, {}), rounds) for n, rounds in counts.items()}
        for name, counts in results.items()
        if name != "server" and counts
    }


def table(results: Results, about: Mapping[str, Mapping[str, Any]]) -> Group:
    """All figures, and below them what each subject is."""
    made = Table(title="medians; tokens/s of all streams together, prefill included")
    for column in COLUMNS:
        made.add_column(column, justify="left" if column == "subject" else "right")
    subject = ""
    for row in rows(results):
        if row[0] != subject:
            made.add_section()
            subject = row[0]
        made.add_row(*row)
    return Group(made, *(Text(f"{NAMES[name]}: {_described(facts)}") for name, facts in about.items()))


def rows(results: Results) -> list[tuple[str, ...]]:
    """The table's cells."""
    over = ratios(results)
    made: list[tuple[str, ...]] = []
    for name, counts in medians(results).items():
        for streams, r in counts.items():
            times = over.get(name, {}).get(streams)
            made.append(
                (
                    NAMES[name],
                    str(streams),
                    f"{r.tokens_per_s:.0f}" if r.tokens_per_s >= 10 else f"{r.tokens_per_s:.1f}",
                    "" if times is None else f"{times:.2f}",
                    f"{r.first_token_s * 1e3:.0f} ({r.first_token_p95_s * 1e3:.0f})",
                    f"{r.between_tokens_s * 1e3:.1f} ({r.between_tokens_p95_s * 1e3:.1f})",
                )
            )
    return made


def write_docs(record: Mapping[str, Any], results: Results, docs: Path) -> None:
    """Keep the whole record as JSON and put its table into benchmarks.md.

    Raises:
        ValueError: the page has lost the marks between which the table belongs.
    """
    page = docs / "benchmarks.md"
    changed = replace_between_marks(page.read_text("utf-8"), markdown(record, results))
    (docs / "benchmarks").mkdir(exist_ok=True)
    (docs / "benchmarks" / f"{record['date']}-cpu.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    page.write_text(changed, "utf-8")


def replace_between_marks(page: str, text: str) -> str:
    """The page with `text` in place of what was between the marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {_BEGIN} and {_END}, between which the results go")
    return f"{before}{begin}\n{text}\n{end}{after}"


def markdown(record: Mapping[str, Any], results: Results) -> str:
    """The results as a page's section: machine and command, table, subjects."""
    machine = record["machine"]
    lines = [
        f"{record['date']}, {machine['cores']} cores of {machine['cpu']} ({machine['instructions']}),"
        f" {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']};"
        f" busy before the run: {machine['busy_before']:.0%}.",
        f"`{record['command']}`: medians of {record['rounds']} rounds, {record['tokens']} tokens an answer;"
        f" everything measured is in [the record](benchmarks/{record['date']}-cpu.json).",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|---{'|--:' * (len(COLUMNS) - 1)}|",
        *(f"| {' | '.join(row)} |" for row in rows(results)),
        "",
        *(f"- {NAMES[name]}: {_described(facts)}" for name, facts in record["subjects"].items()),
    ]
    return "\n".join(lines)


def _described(facts: Mapping[str, Any]) -> str:
    shown = {key: f"{value / 1e6:.0f} MB" if key.endswith("_bytes") else value for key, value in facts.items()}
    return ", ".join(f"{key.removesuffix('_bytes').replace('_', ' ')} {value}" for key, value in shown.items())
