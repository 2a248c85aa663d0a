"""Runs many cases in several processes, and goes on where an earlier run has ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

from .cases import case_of
from .guarding import Job, outcomes
from .memory import Known
from .trying import FAILED, Outcome

_BATCH = 50  # cases
_MEMORY_DISK, _ROOM = Path("/dev/shm"), 2 << 30  # bytes
_KNOWN: Known = {}  # in all cases that a process of the pool has tried


@dataclass
class Tally:
    """What became of many cases."""

    kinds: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)  # case -> what is wrong
    seconds: float = 0.0  # of processor time, the longest of a case
    megabytes: float = 0.0  # the most of a case

    def add(self, number: int, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        self.seconds, self.megabytes = max(self.seconds, outcome.seconds), max(self.megabytes, outcome.megabytes)
        if outcome.kind == FAILED:
            self.failures[number] = outcome.said


@dataclass(frozen=True)
class _Job:
    seed: int
    numbers: tuple[int, ...]
    build_every: int  # of the cases whose number it divides, those with a sound plan are built, loaded and asked; 0: of none


def tried(seed: int, numbers: Iterable[int], *, build_every: int, processes: int = 2) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each case, as they come."""
    listed = list(numbers)
    jobs = [_Job(seed, tuple(listed[at : at + _BATCH]), build_every) for at in range(0, len(listed), _BATCH)]
    with _pool(processes) as pool:
        for found in pool.imap_unordered(_work, jobs):
            yield from found


def _pool(processes: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(processes, os.nice, (5,))


def _work(job: _Job) -> list[tuple[int, Outcome]]:
    built = [job.build_every > 0 and n % job.build_every == 0 for n in job.numbers]
    jobs = [Job(partial(case_of, job.seed, n), with_build) for n, with_build in zip(job.numbers, built, strict=True)]
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=_fast_disk()) as folder:
        return list(zip(job.numbers, outcomes(Path(folder), jobs, _KNOWN), strict=True))


def _fast_disk() -> Path | None:
    """Memory for files, if there is enough of it."""
    return _MEMORY_DISK if _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _ROOM else None


class Journal:
    """What was tried, in a file: a line a case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.tally = Tally()
        self._done: set[int] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                raw = json.loads(line)
                self._count(raw.pop("number"), Outcome(**raw))
            except (ValueError, TypeError, KeyError):
                continue  # the last line of a run that was cut short

    def left(self, count: int) -> list[int]:
        return [number for number in range(count) if number not in self._done]

    def write(self, outcomes: Iterable[tuple[int, Outcome]], tell: Callable[[str], None]) -> None:
        """Note each outcome, tell of failures at once and of the rest now and then."""
        told = time.monotonic()
        with self._path.open("a", encoding="utf-8") as file:
            for number, outcome in outcomes:
                file.write(json.dumps({"number": number} | asdict(outcome)) + "\n")
                file.flush()
                self._count(number, outcome)
                if outcome.kind == FAILED:
                    tell(f"case {number} failed: {outcome.said}")
                if time.monotonic() - told > 30:
                    told = time.monotonic()
                    tell(f"{len(self._done):,} cases, {len(self.tally.failures)} failures")

    def _count(self, number: int, outcome: Outcome) -> None:
        if number not in self._done:
            self._done.add(number)
            self.tally.add(number, outcome)
