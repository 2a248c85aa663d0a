"""The report: one HTML file with plots inside, which asks nothing of any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..core.units import milliseconds
from .page import page
from .step_html import step_section
from .svg import Line, Mark, plot

Json = Mapping[str, Any]


def render_html(result: Json) -> str:
    """The page of a result."""
    steps = result["steps"]
    target = result["target"]
    title = f"Load test of {target['model']} over {target['protocol']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{escape(target["url"])}, {escape(str(result["began"]))}, {escape(result["tool"])}, '
        f"asked from a machine of {result['machine']['cpus']} processors</p>",
        _verdict(result), _tiles(result), _saturation(result), _steps_table(steps), _checks(result), _thresholds(result),
        *(step_section(step, opened=len(steps) == 1) for step in steps), _settings(result),
    ]  # fmt: skip
    return page(title, "\n".join(part for part in body if part))


def _verdict(result: Json) -> str:
    verdict = result["verdict"]
    if verdict["passed"]:
        checked = sum(step["asked"] for step in result["steps"])
        enabled = sum(1 for one in result["checks"].values() if one["enabled"])
        words = f"every answer of {checked:,} was right by {enabled} checks" if enabled else "answers were not checked"
        return f'<div class="verdict good"><b>✓ Passed</b> {escape(words)}</div>'
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    return f'<div class="verdict bad"><b>✗ Failed</b><ul>{reasons}</ul></div>'


def _tiles(result: Json) -> str:
    steps = [s for s in result["steps"] if s["figures"]["requests"]]
    if not steps:
        return ""
    best = max(steps, key=lambda s: float(s["figures"]["tokens_per_s"]))
    tiles = []
    if (full := result["saturation"]) is not None:
        name = "saturation point" if full["reached"] else "not full yet at"
        tiles.append((name, escape(full["load"]), escape(full["why"])))
    tiles.append(("most tokens/s", f"{best['figures']['tokens_per_s']:,.0f}", f"at {escape(best['load'])}"))
    shown = _at_saturation(result) or best
    latencies = shown["figures"]["latencies"]
    for name, words in (("first_token_ms", "first token"), ("between_ms", "between tokens")):
        if name in latencies:
            p95 = latencies[name]["p95"]
            tiles.append((f"{words}, p95", f"{milliseconds(p95 / 1e3)} ms", f"at {escape(shown['load'])}"))
    memory = [s["server"]["memory_most_bytes"] for s in steps if "memory_most_bytes" in s["server"]]
    if memory:
        tiles.append(("server's memory, most", f"{max(memory) / 1e6:,.0f} MB", "of all its processes"))
    cells = "".join(
        f"<div><small>{name}</small><strong>{value}</strong><small>{why}</small></div>" for name, value, why in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _at_saturation(result: Json) -> Json | None:
    full = result["saturation"]
    return next((s for s in result["steps"] if full and s["load"] == full["load"]), None)


def _saturation(result: Json) -> str:
    steps = sorted(
        (s for s in result["steps"] if s["kind"] in ("streams", "rate") and s["figures"]["requests"]),
        key=lambda s: float(s["value"]),
    )
    if len(steps) < 2:
        return ""
    x = [float(s["value"]) for s in steps]
    x_name = "streams" if steps[0]["kind"] == "streams" else "requests/s asked for"
    full = result["saturation"]
    marks = [Mark(full["value"], f"full at {full['load']}")] if full and full["value"] and full["reached"] else []
    limits = _limits(result["settings"]["slo"])

    def latency(name: str, share: str) -> list[float | None]:
        return [s["figures"]["latencies"].get(name, {}).get(share) for s in steps]

    plots = [
        plot(
            "Throughput", [Line("tokens/s", x, [s["figures"]["tokens_per_s"] for s in steps], dots=True)],
            x_name=x_name, y_name="tokens/s", marks=marks, x_ticks=x,
        )
    ]  # fmt: skip
    shown = (
        ("first_token_ms", "First token"),
        ("time_per_token_ms", "Time per token, a request's mean"),
        ("end_to_end_ms", "End to end"),
    )
    for (name, words), key in zip(shown, ("first token", "between", "end to end"), strict=True):
        lines = [
            Line("median", x, latency(name, "p50"), "var(--one)", dots=True),
            Line("p95", x, latency(name, "p95"), "var(--two)", dots=True),
        ]
        objective = [Mark(limits[key], f"objective {limits[key]:g} ms", horizontal=True)] if key in limits else []
        plots.append(plot(words, lines, x_name=x_name, y_name="ms", marks=[*marks, *objective], x_ticks=x))
    return f"<h2>Where it is full</h2><div class='plots'>{''.join(plots)}</div>"


def _limits(slo: str) -> dict[str, float]:
    """Milliseconds by latency, from the words of `Slo`."""
    found = {}
    for part in filter(None, slo.split(", ")):
        name, _, rest = part.partition(" within ")
        found[name] = float(rest.removesuffix(" ms"))
    return found


def _steps_table(steps: Sequence[Json]) -> str:
    good = any("good_share" in s["figures"] for s in steps)
    heads = [
        "load",
        "requests",
        "failed",
        "requests/s",
        "tokens/s",
        "first token, ms",
        "p95",
        "between, ms",
        "p95",
        "end to end, ms",
        "p95",
    ]
    heads += ["within objectives", "goodput/s"] if good else []
    rows = []
    for step in sorted(steps, key=lambda s: float(s["value"])):  # a search goes back and forth
        figures, latencies = step["figures"], step["figures"]["latencies"]
        cells = [
            escape(step["load"]), f"{figures['requests']:,}", f"{figures['failed']:,}", f"{figures['requests_per_s']:,.2f}",
            f"{figures['tokens_per_s']:,.1f}",
        ]  # fmt: skip
        for name in ("first_token_ms", "between_ms", "end_to_end_ms"):
            for share in ("p50", "p95"):
                cells.append(milliseconds(latencies[name][share] / 1e3) if name in latencies else "–")
        if good:
            cells += [f"{figures['good_share']:.1%}", f"{figures['goodput_per_s']:.2f}"]
        rows.append(cells)
    return f"<h2>Loads</h2>{table(heads, rows)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Rows of cells that are HTML already; numbers but for the first, or all of them `words`."""
    css = ' class="words"' if words else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table{css}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _checks(result: Json) -> str:
    from ..core.checks import CHECKS

    rows = []
    for name, one in result["checks"].items():
        state = (
            "not asked for"
            if not one["enabled"]
            else "✓"
            if not one["violations"]
            else f'<b class="no">✗ {one["violations"]:,}</b>'
        )
        more = f" ({one['seen']:,} compared)" if name == "text" and one["enabled"] else ""
        rows.append([name, escape(CHECKS[name]) + more, state])
    told = [(step["load"], v) for step in result["steps"] for v in step["violations_told"]][:50]
    words = table(
        ["load", "check", "what", "request"],
        [[escape(str(c)) for c in (a, v["check"], v["message"], v["request"])] for a, v in told],
        words=True,
    )
    return f"<h2>Whether answers were right</h2>{table(['check', 'what must be', ''], rows, words=True)}" + (
        words if told else ""
    )


def _thresholds(result: Json) -> str:
    if not result["thresholds"]:
        return ""
    rows = [
        [
            escape(t["load"]),
            escape(t["threshold"]),
            "–" if t["value"] is None else f"{t['value']:,.4g}",
            "✓" if t["kept"] else '<b class="no">✗</b>',
        ]
        for t in result["thresholds"]
    ]
    return f"<h2>Thresholds</h2>{table(['load', 'threshold', 'value', ''], rows, words=True)}"


def _settings(result: Json) -> str:
    settings = result["settings"]
    rows = [[escape(k), escape(str(v))] for k, v in settings.items() if k not in ("parts",) and v not in (None, "", [])]
    parts = [
        [
            escape(f"part {part['name']}"),
            escape(", ".join(f"{k} {v}" for k, v in part.items() if k != "name" and v not in (0, None, False))),
        ]
        for part in settings["parts"]
    ]
    command = f"<pre>{escape(result['command'])}</pre>"
    return (
        f"<details><summary>How it was made</summary>{command}{table(['setting', 'value'], rows + parts, words=True)}</details>"
    )
