"""How a model's process tells the server's supervisor that it lives and gets on: a line in a pipe every second.

A process that is stopped, or in which nothing of Python can run, says nothing. One whose work stands still says so itself. It
counts beats, not time: while the machine sleeps, or has no time for this process, nobody's work is late.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

VARIABLE = "TRIUNE_PULSE_FD"  # of the environment: the descriptor of the pipe
EVERY_S = 1.0
REQUEST_BEATS = 60  # for what one request takes of a process's main thread
STEP_BEATS = 300  # for one step of the engine; the longest are of prompts, and of weights that are read meanwhile


@dataclass(frozen=True)
class Watched:
    """Work that must get on.

    Attributes:
        progress: a number that changes when it does; None: there is nothing to do.
        beats: how many with the same number are too many.
    """

    progress: Callable[[], int | None]
    beats: int


class Work:
    """What one thread does: a `with` block for each piece."""

    def __init__(self) -> None:
        self._number = 0
        self._busy = False

    def __enter__(self) -> None:
        self._number += 1
        self._busy = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._busy = False

    def progress(self) -> int | None:
        """See `Watched`."""
        return self._number if self._busy else None


class Pulse:
    """What is said at each beat."""

    def __init__(self, watched: tuple[Watched, ...]) -> None:
        self._watched = watched
        self._seen: list[int | None] = [None] * len(watched)
        self._beats = [0] * len(watched)

    def late_beats(self) -> int:
        """Look once; for how many beats some work has stood still, if that is too many; else 0."""
        for place, one in enumerate(self._watched):
            now = one.progress()
            self._beats[place] = self._beats[place] + 1 if now is not None and now == self._seen[place] else 0
            self._seen[place] = now
        return max((n for n, one in zip(self._beats, self._watched, strict=True) if n >= one.beats), default=0)


def begin(*watched: Watched) -> Work:
    """Beat from now on, if there is somebody to tell; what is to be done in the main thread's `with` blocks."""
    work = Work()
    if descriptor := os.environ.get(VARIABLE):
        pulse = Pulse((Watched(work.progress, REQUEST_BEATS), *watched))
        threading.Thread(target=_beat, args=(int(descriptor), pulse), name="triune-pulse", daemon=True).start()
    return work


def _beat(descriptor: int, pulse: Pulse) -> None:
    while True:
        with suppress(OSError):  # nobody reads, or nobody has read for long
            os.write(descriptor, f"{os.getpid()} {pulse.late_beats()}\n".encode("ascii"))
        time.sleep(EVERY_S)
