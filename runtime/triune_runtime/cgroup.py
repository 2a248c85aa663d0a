"""Control groups, of version 2 or 1: where the limits of this process are told. Any group above its own may have one, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

_MOUNT = "sys/fs/cgroup"
_UNLIMITED = 1 << 60  # what version 1 says where there is no limit is larger


class Files(Protocol):
    """Reads files of the machine."""

    def read(self, path: str) -> str: ...


@dataclass(frozen=True)
class MachineFiles:
    """Those of the machine that this runs on."""

    root: Path = Path("/")

    def read(self, path: str) -> str:
        """The text of a file; empty: it is not there, or not to be read."""
        try:
            return (self.root / path).read_text("utf-8", "replace").strip()
        except OSError:
            return ""


def levels(files: Files, controller: str) -> Iterator[str]:
    """Folders from this process's group up; first those of version 2."""
    lines = [line.split(":", 2) for line in files.read("proc/self/cgroup").splitlines()]
    paths = {names: path for _, names, path in (line for line in lines if len(line) == 3)}
    places = [(_MOUNT, paths.get("", "/"))]
    places += [(f"{_MOUNT}/{names}", path) for names, path in paths.items() if controller in names.split(",")]
    places.append((f"{_MOUNT}/{controller}", "/"))
    seen = dict[str, None]()
    for mount, path in places:
        own = PurePosixPath(path)
        for folder in (own, *own.parents):
            seen[f"{mount}{folder}".rstrip("/")] = None
    yield from seen


def number(text: str) -> int | None:
    """A number; None: no limit, or not told."""
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def memory_limits(files: Files) -> Iterator[tuple[int, int]]:
    """Each limit of memory, and what is used of it, in bytes."""
    for folder in levels(files, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if (most := number(files.read(f"{folder}/{limit}"))) is not None:
                yield most, (number(files.read(f"{folder}/{used}")) or 0) - _cache(files.read(f"{folder}/memory.stat"))


def cores_limit(files: Files) -> float | None:
    """How many cores' time this process may take; None: no limit."""
    found = []
    for folder in levels(files, "cpu"):
        quota, _, period = files.read(f"{folder}/cpu.max").partition(" ")
        if not quota:
            quota, period = files.read(f"{folder}/cpu.cfs_quota_us"), files.read(f"{folder}/cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def throttled(files: Files) -> float | None:
    """The share of periods in which this process's group was stopped for having used up its quota; None: not told."""
    for folder in levels(files, "cpu"):
        counts = dict(line.split(" ", 1) for line in files.read(f"{folder}/cpu.stat").splitlines() if " " in line)
        if int(counts.get("nr_periods", 0)):
            return int(counts.get("nr_throttled", 0)) / int(counts["nr_periods"])
    return None


def pids_limit(files: Files) -> int | None:
    """How many processes and threads the group may have; None: no limit."""
    found = [number(files.read(f"{folder}/pids.max")) for folder in levels(files, "pids")]
    return min((one for one in found if one is not None), default=None)


def _cache(stat: str) -> int:
    """Bytes of files that are counted as used and are given up when needed."""
    counts = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
    return sum(int(counts[name]) for name in ("inactive_file", "total_inactive_file") if counts.get(name, "").isdigit())
