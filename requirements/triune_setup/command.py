"""The set-up of one environment: judges it, checks what can be checked, makes what is missing."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .checks import check, check_fits
from .environment import Environment
from .errors import SetupError
from .parts import Part, find_part
from .shown import Shown

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT_BYTES = 20_000_000  # one that holds pip alone


def run(arguments: list[str]) -> int:
    """Make the environment that the command line asks for; the exit code."""
    folder, *names = [argument for argument in arguments if not argument.startswith("--")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}" if "--given" in arguments else None
    shown = Shown()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _interrupt)
    try:
        make(Environment(Path(folder), ROOT), [find_part(name) for name in names], version, shown)
    except SetupError as error:
        shown.clear()
        print(f"error: {error.args[0]}\n\nhint: {error.hint}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        shown.clear()
        if "MAKELEVEL" in os.environ:  # which says so itself, and ends as the interrupted do if we do, after it has heard of it
            time.sleep(0.1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    except OSError as error:
        shown.clear()
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {folder} cannot be made: {where}{error.strerror or error}\n\nhint: make room on the disk, or the folder "
            "writable, and run this again",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return 1
    return 0


def _interrupt(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what it started is being ended
    raise KeyboardInterrupt


def make(environment: Environment, parts: list[Part], version: str | None, shown: Shown) -> None:
    """Make sure that `parts` are in the environment, and it is whole.

    Args:
        version: of the Python that is asked for; None if any will do.

    Raises:
        SetupError: they cannot be.
    """
    if environment.problem(version) is None and not environment.missing(parts):
        return
    with locked(shown) as lock:
        problem = environment.problem(version)  # another may have made it meanwhile
        missing = parts if problem else environment.missing(parts)
        if not missing:
            return
        for part in missing:
            check_fits(part)
        check(environment.folder, sum(part.bytes for part in missing) + _ENVIRONMENT_BYTES)
        from .making import create, install  # of what they import, a Python that the checks refuse may lack some

        if problem:
            create(environment, problem, shown, lock)
        for part in missing:
            install(environment, part, shown, lock)


@contextmanager
def locked(shown: Shown) -> Iterator[int]:
    """Hold the lock of the checkout's environments: an open file, which the system lets go of when all who have it end."""
    lock = os.open(ROOT / "requirements", os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            shown.say("another set-up is under way here: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield lock
    finally:
        os.close(lock)
