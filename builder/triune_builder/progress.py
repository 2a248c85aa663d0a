"""Shows what a build is doing: percent, bytes, the time that is left; a line of its own on a terminal, plain lines elsewhere.

On stderr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from .errors import printable

_PLAIN_INTERVAL = 10.0  # seconds between the lines of one stage where there is no terminal
_TELLING = 2.0  # seconds after which the time that is left can be told


@dataclass
class StageClock:
    """A stage under way: tells what it is at, and in the end what it took."""

    name: str
    show: Display
    started: float = field(default_factory=lambda: time.monotonic())
    seconds: float = 0.0
    peak_bytes: int = 0
    words: str = ""  # on the part that is under way
    counted: str = ""  # how much of it is done, and the time that is left
    since: float = field(default_factory=lambda: time.monotonic())  # the part's beginning

    def note(self, words: str) -> None:
        """A few words on the part that begins now."""
        self.words, self.counted, self.since = words, "", time.monotonic()
        self.show.update(self)

    def count_bytes(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes of this part; the total may be unknown."""
        self.counted = amount(done, total, time.monotonic() - self.since)
        self.show.update(self)

    def count(self, done: int, total: int) -> None:
        """`done` of `total` weights of this part."""
        self.counted = amount(done, total, time.monotonic() - self.since, "weights")
        self.show.update(self)

    def adder(self, total: int) -> Callable[[int], None]:
        """What is to be called with the bytes of each piece of this part, of `total` in all."""
        done = 0

        def add(more: int) -> None:
            nonlocal done
            done += more
            self.count_bytes(done, total)

        return add

    @property
    def told(self) -> str:
        """What there is to tell, the most important first."""
        return ", ".join(filter(None, (self.counted, self.words)))


def amount(done: int, total: int | None, seconds: float, unit: str = "MB") -> str:
    """How much is done after so many seconds, in words: percent, amounts, the time that is left.

    Args:
        unit: MB: `done` and `total` are bytes; any other: they are counted as they are.
    """
    scale, digits = (1e6, 1 if (total or done) < 10e6 else 0) if unit == "MB" else (1, 0)
    if not total:
        return f"{done / scale:,.{digits}f} {unit}"
    words = f"{done / total:4.0%}, {done / scale:,.{digits}f} of {total / scale:,.{digits}f} {unit}"
    if seconds < _TELLING or not 0 < done < total:
        return words
    left = seconds * (total - done) / done
    shown = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    return f"{words}, {shown} left"


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
            told = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
            with Progress(SpinnerColumn(), _Seconds(), told, console=self._console, transient=True) as self._live:
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

    def update(self, clock: StageClock) -> None:
        """Called by the stage under way."""
        if self._live is not None:
            self._live.update(self._live.task_ids[0], description=f"{clock.name:<10} {clock.told}")
        elif time.monotonic() - self._last_line > _PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            self.say(f"{clock.name:<10} {clock.told or 'under way'}, {self._last_line - clock.started:.0f} s so far")

    def notes(self, notes: Iterable[str]) -> None:
        """What the user should know of the checkpoint, a line each."""
        for note in notes:
            self.say(f"{'note':<10} {printable(note)}")

    def say(self, line: str) -> None:
        """One line for the user."""
        if not self._quiet:
            self._console.print(line, markup=False, soft_wrap=True)


class _Seconds(TextColumn):
    """The seconds of a stage so far."""

    def __init__(self) -> None:
        super().__init__("", table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(f"{task.elapsed or 0:4.0f} s")


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
