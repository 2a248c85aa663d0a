"""Tries cases in a process beside this one, and another when it ends: whatever a case does to its process is its outcome."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

from triune_builder.dry_run import dry_run
from triune_builder.inputs import Settings
from triune_builder.progress import Display

from . import trying
from .bases import bases
from .cases import Case, empty
from .memory import Known
from .trying import FAILED, Outcome, Trier

WALL = 240  # seconds after which a case hangs, on however busy a machine


@dataclass(frozen=True)
class Job:
    """A case to be tried."""

    make: Callable[[], Case]  # in the process that tries it
    with_build: bool


def outcomes(folder: Path, jobs: Sequence[Job], known: Known) -> Iterator[Outcome]:
    """The outcome of each job, in their order.

    Args:
        folder: for checkpoints and builds.
        known: what was found in cases so far; more is put into it.
    """
    _warm_up()
    done = 0
    while done < len(jobs):
        for outcome in _of_one_process(folder, jobs[done:], known):
            done += 1
            yield outcome


def outcome(folder: Path, case: Case, *, with_build: bool) -> Outcome:
    """The outcome of one case, of which nothing is known."""
    (only,) = outcomes(folder, [Job(lambda: case, with_build)], {})
    return only


def _of_one_process(folder: Path, jobs: Sequence[Job], known: Known) -> Iterator[Outcome]:
    """The outcomes of the first of the jobs, as far as one process comes: of one at least."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = os.fork()
    if process == 0:
        reader.close()
        _try_and_exit(Trier(folder, known), jobs, writer)
    writer.close()
    spent, last = 0.0, False
    with reader:
        while not last and reader.poll(WALL):
            try:
                outcome, new, spent, last = reader.recv()
            except (EOFError, OSError):  # the second where it ends within a message
                break
            known |= new
            yield outcome
        status, seconds = _ended(process, after=WALL if last or reader.poll() else 0)
    if last:
        return
    if status is None:
        yield Outcome(kind=FAILED, said=f"no end within {WALL} s", seconds=seconds - spent)
        return
    number = os.waitstatus_to_exitcode(status)
    name = signal.Signals(-number).name if number < 0 else str(number)
    yield Outcome(kind=FAILED, said=f"ended by {name}", seconds=seconds - spent)


def _ended(process: int, *, after: float) -> tuple[int | None, float]:
    """The status of a process's end, None where it had to be ended `after` so many seconds, and its processor time."""
    ends = time.monotonic() + after
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return status, usage.ru_utime + usage.ru_stime
        if time.monotonic() >= ends:
            os.kill(process, signal.SIGKILL)
            _, _, usage = os.wait4(process, 0)
            return None, usage.ru_utime + usage.ru_stime
        time.sleep(0.002)


def _try_and_exit(trier: Trier, jobs: Sequence[Job], pipe: Connection) -> None:
    try:
        for left, job in zip(range(len(jobs) - 1, -1, -1), jobs, strict=True):
            outcome, new = trier.outcome(job.make, with_build=job.with_build)
            last = trier.worn or not left
            pipe.send((outcome, new, trying.spent(), last))
            if last:
                break
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(0)


@cache
def _warm_up() -> None:
    """Import all that a case imports, so that its process need not; what is there by then is let be."""
    with tempfile.TemporaryDirectory() as name:
        for base in ("llama", "gguf"):
            case = Case(
                seed=0, number=0, base=base, files=dict(bases()[base]), done=(), precision="fp32", max_length="64", linked=False
            )
            checkpoint = case.write(empty(Path(name) / base))
            dry_run(trying.plan_of_case(case, checkpoint), Settings(build_dir=Path(name)), display=Display(quiet=True))
    importlib.import_module("onnxruntime")
    gc.collect()
    gc.freeze()
