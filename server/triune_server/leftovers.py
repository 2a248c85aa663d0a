"""What a run that was killed has left: its processes, found by a mark that they have, its shared memory and temporary folders.

Whoever looks for them holds the lock of the run folder: nobody who lives owns them then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
_TEMPORARY = "/tmp"  # where a folder goes that must not be where TMPDIR says
VARIABLE = "TRIUNE_RUN"  # of the environment of every process of a server
_GONE_S = 5.0  # for what was killed to be gone
_LOOK_S = 0.01
_ROUNDS = 5  # one that is just being killed may start another


def mark_of(run_folder: Path) -> str:
    """What tells the processes of servers of this very run folder from all others."""
    found = run_folder.stat()
    return f"{found.st_dev}:{found.st_ino}:{run_folder.resolve()}"


def name_prefix(mark: str) -> str:
    """How the names of their shared memory and temporary folders begin."""
    return f"triune{hashlib.sha256(mark.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}_"


def marked(mark: str) -> Iterator[psutil.Process]:
    """Every live process with a mark."""
    entry = f"{VARIABLE}={mark}".encode("utf-8", "surrogateescape")
    processes: list[psutil.Process] = []
    with suppress(OSError):  # no descriptor is left
        processes += psutil.process_iter()
    for process in processes:
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's, or it has ended meanwhile
        if entry in environment and process.pid != os.getpid():
            yield process


def end_leftovers(mark: str) -> int:
    """End the processes with a mark, and remove what they have left; how many processes there were. Needs the lock."""
    ended = set()
    for _ in range(_ROUNDS):
        left = list(marked(mark))
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_gone(left, _GONE_S)
        ended.update(left)
        if not left:
            break
    free_shared_memory(name_prefix(mark))
    _remove_folders(name_prefix(mark))
    return len(ended)


def wait_gone(processes: Collection[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all have ended; those that have not.

    One that nobody has asked for its exit code has ended, too: where this process is the first of a container, it is the one to
    ask for what others have started.
    """
    end = time.monotonic() + timeout_s
    while (left := [process for process in processes if not _is_gone(process)]) and time.monotonic() < end:
        time.sleep(_LOOK_S)
    return left


def _is_gone(process: psutil.Process) -> bool:
    if isinstance(process, psutil.Popen):
        return process.poll() is not None
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return False
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    except psutil.NoSuchProcess:
        pass
    except OSError:  # it cannot be seen
        return False
    return True


def free_shared_memory(prefix: str) -> None:
    """Remove what processes shared that are gone: Triton, if it is killed, leaves it behind."""
    for region in shared_memory(prefix):
        with suppress(OSError):  # another user's
            region.unlink()


def shared_memory(prefix: str) -> list[Path]:
    """What is shared under names that begin so, as far as it can be seen."""
    found: list[Path] = []
    with suppress(OSError):  # no descriptor is left
        found += SHARED_MEMORY.glob(f"{prefix}*")
    return found


@contextmanager
def temporary_folder(mark: str, *, plain: bool = False) -> Iterator[Path]:
    """A folder of this user alone for as long as the `with` block; if this process is killed, until `end_leftovers`.

    Args:
        plain: in a place with a short path of plain letters, whatever TMPDIR says.
    """
    place = _TEMPORARY if plain else None
    with tempfile.TemporaryDirectory(prefix=name_prefix(mark), dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _remove_folders(prefix: str) -> None:
    for place in {_TEMPORARY, tempfile.gettempdir()}:
        for folder in Path(place).glob(f"{prefix}*"):
            with suppress(OSError):
                if folder.lstat().st_uid == os.geteuid():
                    shutil.rmtree(folder, ignore_errors=True)
