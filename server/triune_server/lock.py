"""One supervisor for each run folder: a lock that it holds for its life, which the kernel takes back however it ends.

What lies in the folder, or has its mark, while nobody holds the lock is of a run that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from .errors import ServerError
from .leftovers import end_leftovers, mark_of, marked
from .state import find_running, forget

_NAME = "lock"
_LOOK_S = 0.05
_TIDYING_S = 15.0  # for a command that tidies up
_STARTING_S = 2.0  # for a server that starts to say what it serves


class Locked(Exception):
    """Somebody else holds the lock."""


class RunLock:
    """The lock of a run folder. The file stays: who removed it could lock another than those who still wait for it."""

    def __init__(self, folder: Path) -> None:
        """Take it.

        Raises:
            Locked: somebody else has it.
            ServerError: the file system has no locks.
        """
        self._file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise Locked from None
        except OSError as error:
            self.release()
            said = f"{folder} lies on a file system without locks: {error.strerror}"
            raise ServerError(said, "choose another: RUN_FOLDER=FOLDER") from None

    def sign(self) -> None:
        """Say whose it is, for `supervisor`."""
        with suppress(OSError):  # a full disk
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()} {psutil.Process().create_time()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def lock_for_life(folder: Path) -> RunLock:
    """Take the lock of a supervisor, and end what a run before it has left.

    Raises:
        ServerError: somebody serves there, or starts to.
    """
    began = time.monotonic()
    while True:
        try:
            lock = RunLock(folder)
        except Locked:
            holder = supervisor(folder)
            if (running := find_running(folder)) is not None:
                who = f"{running.model} is being served already (pid {running.pid}, {running.options.http_url})"
            elif time.monotonic() - began < (_TIDYING_S if holder is None else _STARTING_S):
                time.sleep(_LOOK_S)
                continue
            else:
                pid = "" if holder is None else f" (pid {holder.pid})"
                who = f"another server is starting or stopping in {folder}{pid}"
            raise ServerError(who, "use that one; or stop it first: `make down`") from None
        lock.sign()
        end_leftovers(mark_of(folder))
        return lock


def supervisor(folder: Path) -> psutil.Process | None:
    """The process that holds the lock for its life, also one without a state file; None: nobody does."""
    with _free(folder) as free:
        if free:
            return None
    try:
        pid, created = (folder / _NAME).read_text("ascii").split()
        process = psutil.Process(int(pid))
        return process if abs(process.create_time() - float(created)) < 1 else None
    except (OSError, ValueError, psutil.Error):
        return None


def leftovers(folder: Path) -> list[psutil.Process]:
    """The processes of a run in `folder` that was killed."""
    with _free(folder) as free:
        return list(marked(mark_of(folder))) if free else []


def tidy(folder: Path) -> int:
    """End what a run that was killed has left in `folder`, and remove its state; how many processes that were."""
    with _free(folder) as free:
        if not free:
            return 0
        ended = end_leftovers(mark_of(folder))
        forget(folder)
        return ended


@contextmanager
def _free(folder: Path) -> Iterator[bool]:
    """Hold the lock for moments, if nobody has it; whether that is so."""
    try:
        lock = RunLock(folder)
    except (Locked, ServerError, OSError):  # or there is no such folder, or it cannot be written
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
