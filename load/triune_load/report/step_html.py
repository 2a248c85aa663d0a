"""One load's section of the report: what happened when, how latencies are spread, what the server and the tool did."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ..core.units import milliseconds
from .svg import Line, Mark, histogram, plot

Json = Mapping[str, Any]
_NAMES = {
    "first_token_ms": "first token", "between_ms": "between tokens", "time_per_token_ms": "time per token, a request's mean",
    "end_to_end_ms": "end to end", "queue_ms": "in the server's queue", "lag_ms": "started late by this tool",
}  # fmt: skip
_DOTS = 800  # of a scatter


def step_section(step: Json, *, opened: bool) -> str:
    """The section of a step."""
    figures = step["figures"]
    plots = [*_time_plots(step), *_spread(figures), *_server(step["server"])]
    return (
        f"<details{' open' if opened else ''}><summary>{escape(step['load'])}: {figures['tokens_per_s']:,.1f} tokens/s, "
        f"{figures['requests']:,} requests</summary>{_latency_table(figures)}{_errors(figures)}"
        f"<div class='plots'>{''.join(plots)}</div>{_notes(step)}</details>"
    )


def _latency_table(figures: Json) -> str:
    rows = []
    for name, words in _NAMES.items():
        if (one := figures["latencies"].get(name)) is None:
            continue
        cells = [escape(words)]
        for key in ("mean", "p50", "p90", "p95", "p99"):
            interval = one["ci95"].get(key)
            near = f"<small>{milliseconds(interval[0] / 1e3)} to {milliseconds(interval[1] / 1e3)}</small>" if interval else ""
            cells.append(f"{milliseconds(one[key] / 1e3)}{near}")
        cells.append(milliseconds(one["most"] / 1e3))
        rows.append(cells)
    head = "".join(f"<th>{name}</th>" for name in ("ms", "mean", "p50", "p90", "p95", "p99", "most"))
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _errors(figures: Json) -> str:
    if not figures["errors"]:
        return ""
    items = "".join(
        f'<li><b class="no">{one["count"]:,} {escape(one["kind"])}</b>: {escape(one["example"])}</li>'
        for one in figures["errors"]
    )
    return f"<ul>{items}</ul>"


def _time_plots(step: Json) -> list[str]:
    series, samples = step["series"], step["figures"]["samples"]
    size = series["bucket_s"]
    middles = [(n + 0.5) * size for n in range(len(series["tokens"]))]
    warm = [Mark(step["warmup_s"], "counted from here")] if step["warmup_s"] else []
    every = max(1, len(samples["intended_s"]) // _DOTS)
    at, first = samples["intended_s"][::every], samples["first_token_ms"][::every]
    return [
        plot(
            "Tokens in each second", [Line("tokens/s", middles, [n / size for n in series["tokens"]])],
            x_name="seconds", y_name="tokens/s", marks=warm, steps=True,
        ),
        plot(
            "Requests under way", [Line("requests", middles, [max(0, n) for n in series["open"]])],
            x_name="seconds", y_name="requests", marks=warm, steps=True,
        ),
        plot(
            "First token, by when its request was due", [Line("first token", at, first, dots=True, line=False)],
            x_name="seconds", y_name="ms",
        ),
    ]  # fmt: skip


def _spread(figures: Json) -> list[str]:
    plots = []
    for name, words in (("first_token_ms", "First token"), ("time_per_token_ms", "Time per token")):
        values = [v for v in figures["samples"][name] if v is not None]
        if values:
            one = figures["latencies"][name]
            marks = [Mark(one["p50"], f"median {milliseconds(one['p50'] / 1e3)}")]
            if one["p95"] > one["p50"] * 1.4:
                marks.append(Mark(one["p95"], f"p95 {milliseconds(one['p95'] / 1e3)}"))
            plots.append(histogram(f"{words}: how requests are spread", values, x_name="ms", marks=marks))
    return plots


def _server(server: Json) -> list[str]:
    samples = server["samples"]
    told = [s for s in samples if s.get("metrics")]
    plots = []
    if told:
        x = [s["at"] for s in told]
        lines = [
            Line("running", x, [s["metrics"].get("running") for s in told], "var(--one)"),
            Line("waiting", x, [s["metrics"].get("waiting") for s in told], "var(--two)"),
        ]
        plots.append(plot("Requests, by the server", lines, x_name="seconds", y_name="requests"))
    weighed = [s for s in samples if "memory_bytes" in s]
    if weighed:
        line = Line("memory", [s["at"] for s in weighed], [s["memory_bytes"] / 1e6 for s in weighed])
        plots.append(plot("Memory of the server's processes", [line], x_name="seconds", y_name="MB", steps=True))
    return plots


def _notes(step: Json) -> str:
    server, tool = step["server"], step["tool"]
    notes = []
    if "queue_mean_ms" in server:
        notes.append(f"In the server's queue, by its own metrics: {server['queue_mean_ms']:,.1f} ms on average.")
    if "cpu_cores" in server:
        notes.append(f"The server's processes took {server['cpu_cores']:.2f} processors.")
    if "running_most" in server:
        notes.append(
            f"Most requests running at a sample: {server['running_most']:g}; waiting: {server.get('waiting_most', 0):g}."
        )
    lag = tool["lag_ms"]
    if lag:
        late = milliseconds(lag["p99"] / 1e3)
        notes.append(f"This tool took {tool['cpu_share']:.0%} of a processor and started requests {late} ms late at p99.")
        if tool["disturbs"]:
            notes.append(
                "<b class='no'>That is much: its own figures are part of these. Take a quieter machine, or another one.</b>"
            )
    return f'<p class="dim">{" ".join(notes)}</p>'
