"""Shows what a build is doing: a spinner, seconds and a bar on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .errors import printable

_PLAIN_INTERVAL = 10.0  # seconds between the lines of one stage where there is no terminal


@dataclass
class StageClock:
    """A stage under way: tells what it is at, and in the end what it took."""

    name: str
    show: Display
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    peak_bytes: int = 0

    def note(self, words: str) -> None:
        """A few words on the part that begins now."""
        self.show.update(self, words, None)

    def count(self, done: int, total: int | None) -> None:
        """`done` of `total` (bytes, weights, ...); the total may be unknown."""
        self.show.update(self, None, (done, total))


class Display:
    """The stages of one build, one after the other."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._live: Progress | None = None
        self._last_line = 0.0

    @contextmanager
    def stage(self, name: str, *, done: Callable[[StageClock], None] = lambda clock: None) -> Iterator[StageClock]:
        """Show `name` while the body runs, then its time and peak memory; `done` is told of both."""
        _reset_peak()
        clock = StageClock(name, self)
        self._last_line = time.monotonic()
        if self._console.is_terminal and not self._quiet:
            columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn()
            with Progress(*columns, console=self._console, transient=True) as self._live:
                self._live.add_task(name, total=None)
                try:
                    yield clock
                finally:
                    self._live = None
        else:
            yield clock
        clock.seconds, clock.peak_bytes = time.monotonic() - clock.started, peak_bytes()
        done(clock)
        self.say(f"{name:<10} {clock.seconds:6.1f} s   peak {clock.peak_bytes / 1e6:6,.0f} MB")

    def update(self, clock: StageClock, words: str | None, count: tuple[int, int | None] | None) -> None:
        """Called by the stage under way."""
        if self._live is not None:
            task = self._live.task_ids[0]
            if words is not None:
                self._live.update(task, description=f"{clock.name}: {words}", completed=0, total=None)
            if count is not None:
                self._live.update(task, completed=count[0], total=count[1])
        elif time.monotonic() - self._last_line > _PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            parts = f" {count[0]:,} of {count[1]:,}" if count and count[1] else ""
            self.say(f"{clock.name:<10} {words or 'under way'}{parts}, {self._last_line - clock.started:.0f} s so far")

    def notes(self, notes: Iterable[str]) -> None:
        """What the user should know of the checkpoint, a line each."""
        for note in notes:
            self.say(f"{'note':<10} {printable(note)}")

    def say(self, line: str) -> None:
        """One line for the user."""
        if not self._quiet:
            self._console.print(line, markup=False, soft_wrap=True)


def peak_bytes() -> int:
    """Largest resident memory of this process since the stage began; since its start where the system cannot tell."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _reset_peak() -> None:
    """Let the kernel forget the peak of the stage before; not every system can, and then peaks only grow."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
