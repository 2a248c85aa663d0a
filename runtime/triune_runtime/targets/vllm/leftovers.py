"""What processes of vLLM that were killed have left in shared memory: swept before an engine starts.

Its files have names that say nothing of their owner. So one counts as left behind if it is of this user, if no process that
lives has it mapped or open, and if it was not made just now: whoever makes one maps it in the same moment, and as long as he
lives. A process that cannot be looked at, as a container's first one, may have any of them if it runs Python or vLLM.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

LOG = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")
_NAMES = ("psm_*", "vllm_dist_*")  # of Python's shared memory, and of what it passes tensors through
_JUST_NOW_S = 30.0
_MAKES_SOME = re.compile(rb"python|vllm", re.IGNORECASE)  # in the command of a process


def sweep(folder: Path = SHARED_MEMORY, proc: Path = Path("/proc"), just_now_s: float = _JUST_NOW_S) -> int:
    """Remove what was left behind; how many bytes that was."""
    found = {path.name: path for pattern in _NAMES for path in folder.glob(pattern) if _is_old(path, just_now_s)}
    if not found or (used := _used(folder, proc)) is None:
        return 0
    freed = 0
    for name in found.keys() - used:
        with contextlib.suppress(OSError):  # another has just done it
            size = found[name].stat().st_size
            found[name].unlink()
            freed += size
    if freed:
        LOG.info("removed %.1f MB of shared memory that processes of vLLM had left", freed / 1e6)
    return freed


def _is_old(path: Path, just_now_s: float) -> bool:
    try:
        about = path.lstat()
    except OSError:
        return False
    return about.st_uid == os.geteuid() and time.time() - about.st_ctime > just_now_s


def _used(folder: Path, proc: Path) -> set[str] | None:
    """The names of those that a process of this user has; None: one that cannot be looked at may have any."""
    used: set[str] = set()
    for process in proc.glob("[0-9]*"):
        try:
            if process.stat().st_uid != os.geteuid():
                continue
            text = (process / "maps").read_text("utf-8", "replace") + "\n".join(_open_in(process))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except OSError:
            if _makes_some(process):
                return None
            continue
        used.update(name.split(maxsplit=1)[0] for line in text.splitlines() for name in line.split(f"{folder}/")[1:])
    return used


def _open_in(process: Path) -> Iterator[str]:
    """The paths of what a process has open."""
    for one in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            yield str(one.readlink())


def _makes_some(process: Path) -> bool:
    try:
        return _MAKES_SOME.search((process / "cmdline").read_bytes()) is not None
    except FileNotFoundError:
        return False  # it has ended meanwhile
    except OSError:
        return True
