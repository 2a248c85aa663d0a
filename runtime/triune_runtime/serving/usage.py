"""What this process takes of the machine: memory and disks. Reads the kernel's own files; no package, no Triton."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..metrics import Disk, Usage

_PAGE_BYTES, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


def folders(engine: Path) -> dict[str, Path]:
    """The folders whose disks are looked at, by `metrics.FOLDERS`."""
    return {"engine": engine, "tmp": Path(os.environ.get("TMPDIR") or "/tmp"), "shm": Path("/dev/shm")}


def this_process(disks: Mapping[str, Path], proc: Path = Path("/proc")) -> Usage:
    """What is used now.

    Args:
        disks: a folder of each.

    Raises:
        OSError, ValueError: the kernel does not tell of the process.
    """
    pages = int((proc / "self/statm").read_text().split()[1])
    after_name = (proc / "self/stat").read_text().rpartition(")")[2].split()
    booted = next(line for line in (proc / "stat").read_text().splitlines() if line.startswith("btime "))
    found = {}
    for name, folder in disks.items():
        try:
            about = os.statvfs(folder)
        except OSError:
            continue
        found[name] = Disk(about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize)
    started = int(booted.split()[1]) + int(after_name[19]) / _TICKS
    return Usage(started=started, resident_bytes=pages * _PAGE_BYTES, disks=found)
