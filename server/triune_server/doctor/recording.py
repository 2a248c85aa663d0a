"""Asks the engines of a server that runs here to record their steps, and reads what they recorded.

By files in the run folder, which are this user's alone: see `triune_runtime.serving.profiling`.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from triune_runtime.recorded import ASK, Timed

from ..draining_file import profile_files
from ..errors import ServerError
from ..view import View

_PATIENCE_S = 15.0  # beyond the time that is recorded: for engines to look, to take note and to write
_LOOK_S = 0.1


@dataclass(frozen=True)
class Record:
    """Of one engine."""

    model: str
    pid: int
    slots: int
    dropped: int  # events that there was no room for
    began: int  # nanoseconds: an engine begins and ends between two steps
    ended: int
    events: tuple[Timed, ...]


def record(run_folder: Path, seconds: float) -> list[Record]:
    """The steps of every engine that is served, for some time.

    Raises:
        ServerError: somebody else asks already, or no engine answers.
    """
    name, beginning = secrets.token_hex(8), profile_files(run_folder)
    expected = max(1, len(View(run_folder).served()))
    with _asked(beginning.with_suffix(ASK), name, seconds):
        end = time.monotonic() + seconds + _PATIENCE_S
        try:
            while len(found := _written(beginning, name)) < expected and time.monotonic() < end:
                time.sleep(_LOOK_S)
            if not found:
                raise ServerError(
                    "no engine answers",
                    "`make logs` and `make status` say whether it hangs; one of an earlier version: `make up SWITCH=1`",
                )
            return named_apart([read(path) for path in found])
        finally:
            for path in beginning.parent.glob(f"{beginning.name}-{name}-*"):
                path.unlink(missing_ok=True)


def read(path: Path) -> Record:
    """What an engine wrote."""
    with path.open(encoding="ascii") as file:
        about = json.loads(file.readline())
        events = tuple(Timed(*event) for line in file for event in json.loads(line))
    return Record(
        about["model"],
        about["pid"],
        about["slots"],
        about["dropped"],
        about["began"],
        about["ended"],
        tuple(sorted(events, key=lambda one: one.began)),
    )


def named_apart(records: Sequence[Record]) -> list[Record]:
    """Two engines of one model get the ids of their processes."""
    count = Counter(one.model for one in records)
    return [replace(one, model=f"{one.model} (pid {one.pid})") if count[one.model] > 1 else one for one in records]


def _written(beginning: Path, name: str) -> list[Path]:
    return sorted(path for path in beginning.parent.glob(f"{beginning.name}-{name}-*") if path.suffix != ".new")


@contextmanager
def _asked(file: Path, name: str, seconds: float) -> Iterator[None]:
    """The question, for as long as it is asked."""
    question = json.dumps({"name": name, "seconds": seconds, "until": time.time() + seconds + _PATIENCE_S})
    with suppress(OSError, ValueError, LookupError, TypeError):
        if json.loads(file.read_text("ascii"))["until"] < time.time():
            file.unlink()  # of one that was killed
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ServerError("another profile is being recorded", f"wait for it, or remove {file}") from None
    try:
        for left in file.parent.glob(f"{file.stem}-*"):  # of who was killed: nobody else asks now
            left.unlink(missing_ok=True)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(question)
        yield
    finally:
        file.unlink(missing_ok=True)
