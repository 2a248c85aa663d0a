"""The display while a load runs. A process of its own: drawing takes milliseconds, which would delay requests.

Run as `python -m triune_load.live`, reads a JSON line for each look, draws on stderr.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Look = Mapping[str, Any]
_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 60


def sparkline(values: list[float], width: int = _HISTORY) -> str:
    """The last values as a row of bars."""
    shown = values[-width:]
    most = max(shown, default=0.0)
    return "".join(_BARS[round(max(0.0, v) / most * 8) if most > 0 else 0] for v in shown)


def render(look: Look, history: Mapping[str, deque[float]]) -> RenderableType:
    """What is seen of a look."""
    head = Text.assemble(
        (f"{look['load']}", "bold"), f"  step {look['step']} of {look['steps'] or '?'}   ", (look["target"], "dim"),
    )  # fmt: skip
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=1.0, completed=look["share"], width=40), f"{look['progress']}")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    tokens, first = list(history["tokens_per_s"]), list(history["first_token_ms"])
    table.add_row("tokens/s", f"{look['tokens_per_s']:,.0f}", Text(sparkline(tokens), style="cyan"))
    table.add_row("first token, ms", _or_dash(look["first_token_ms"]), Text(sparkline(first), style="magenta"))
    table.add_row("requests", f"{look['ended']:,}", Text(f"{look['open']} under way, {look['rate']:.1f}/s"))
    errors = Text(f"{look['errors']:,}", style="bold red" if look["errors"] else "green")
    violations = Text(f"{look['violations']:,}", style="bold red" if look["violations"] else "green")
    table.add_row("errors", errors, Text(look["last_error"][:90], style="red"))
    table.add_row("wrong answers", violations, Text(look["last_violation"][:90], style="red"))
    return Group(head, bar, table)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


class Display:
    """Sends looks to the process that draws; none if it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        self._process = None
        if wanted:
            self._process = subprocess.Popen([sys.executable, "-m", "triune_load.live"], stdin=subprocess.PIPE)

    def show(self, look: Look) -> None:
        """Draws a look soon; a display that ended is not missed."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(json.dumps(look).encode() + b"\n")
                self._process.stdin.flush()

    def close(self) -> None:
        """Ends the display."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait(5)
            self._process = None


def _looks() -> Iterator[Look]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Draws looks until the input ends."""
    history: dict[str, deque[float]] = {name: deque(maxlen=_HISTORY) for name in ("tokens_per_s", "first_token_ms")}
    load = None
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        for look in _looks():
            if look["load"] != load:
                load = look["load"]
                for one in history.values():
                    one.clear()
            for name, one in history.items():
                one.append(look[name] or 0.0)
            live.update(render(look, history), refresh=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
