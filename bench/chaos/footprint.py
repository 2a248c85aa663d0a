"""What the processes of a server hold at a moment, and what of it should have been given back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .family import RENDERER, role_of

SHARED_MEMORY = Path("/dev/shm")
_MIB = 1 << 20
# What may come and go: a connection that is kept open for a while, a thread's pipe.
DESCRIPTORS = 12
# What a Python process keeps once it was used. r1-nano's own KV memory is some 20 MiB.
GROWTH_MIB = 96.0
_LATER = {RENDERER: 2}  # of a role, as many as may come whenever they are first needed
_STEM = re.compile("triune[0-9a-f]{16}_")


@dataclass(frozen=True)
class Member:
    """A process of a server.

    Attributes:
        created: seconds since the epoch; process ids are used again.
        memory_mib: its proportional share of what it maps.
    """

    pid: int
    created: float
    role: str
    descriptors: int
    memory_mib: float

    @property
    def who(self) -> str:
        return f"{self.role} (pid {self.pid})"


@dataclass(frozen=True)
class Footprint:
    """Of a server at a moment.

    Attributes:
        segments: names in /dev/shm that it maps, or that begin as one that it has mapped.
        files: below its temporary folder.
    """

    members: tuple[Member, ...] = ()
    segments: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    def by_role(self) -> dict[str, int]:
        """How many processes there are of each role."""
        found: dict[str, int] = {}
        for member in self.members:
            found[member.role] = found.get(member.role, 0) + 1
        return found


@dataclass
class Memory:
    """What was ever seen of a server, so that what is left of dead processes is known for its own."""

    segments: set[str] = field(default_factory=set)
    usual: frozenset[str] = frozenset()  # files that any server makes in its temporary folder, under one name, and leaves

    def look(self, processes: Iterable[psutil.Process], temporary: Path) -> Footprint:
        """The footprint of these processes now, and of what they were before."""
        members, mapped = [], set[str]()
        for process in processes:
            with suppress(psutil.Error, OSError):
                members.append(_member(process))
                mapped |= segments_of(process.pid)
        self.segments |= mapped
        stems = {stem for name in self.segments if (stem := _stem(name))}
        with suppress(OSError):
            self.segments |= {one.name for one in SHARED_MEMORY.iterdir() if _stem(one.name) in stems}
        there = {name for name in self.segments if (SHARED_MEMORY / name).exists()}
        files = {str(path.relative_to(temporary)) for path in temporary.rglob("*")} if temporary.is_dir() else set()
        return Footprint(tuple(members), frozenset(there), frozenset(files) - self.usual)


def _stem(name: str) -> str:
    """How all names of one run folder's segments begin; empty if it is none of theirs."""
    found = _STEM.match(name)
    return found[0] if found else ""


def _member(process: psutil.Process) -> Member:
    try:
        size = process.memory_full_info().pss
    except psutil.AccessDenied:
        size = process.memory_info().rss
    return Member(process.pid, process.create_time(), role_of(process), process.num_fds(), size / _MIB)


def segments_of(pid: int) -> set[str]:
    """The names of the shared memory that a process maps."""
    found = set()
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines():
        path = line.partition(f"{SHARED_MEMORY}/")[2]
        if path:
            found.add(path.removesuffix(" (deleted)"))
    return found


def left_behind(now: Footprint) -> list[str]:
    """Of a server that has ended: everything that is still there."""
    found = []
    if now.members:
        found.append(f"leaked process: although its server has ended, {', '.join(member.who for member in now.members)}")
    if now.segments:
        found.append(f"leaked segment: {len(now.segments)} in /dev/shm: {', '.join(sorted(now.segments))}")
    return [*found, *(f"leaked file: {name} in its temporary folder" for name in sorted(now.files))]


def grown(before: Footprint, now: Footprint) -> list[str]:
    """Of a server that runs: what it holds more than before.

    Processes that were there before are compared with themselves, new ones with those of the same role.
    """
    found = []
    roles = before.by_role()
    for role, count in now.by_role().items():
        if role and count > max(roles.get(role, 0), _LATER.get(role, 0)):
            found.append(f"leaked process: {count} of {role}, before {roles.get(role, 0)}")
    segments = len(now.segments) - len(before.segments)
    if segments > 0:
        found.append(f"leaked segment: {segments} more than before in /dev/shm, of {len(now.segments)}")
    if len(now.files) > len(before.files):  # one that was started anew has others, of other names
        found += [f"leaked file: {name} in its temporary folder" for name in sorted(now.files - before.files)]
    most = _most(before)
    for member in now.members:
        if member.role not in most:
            continue
        descriptors, memory = most[member.role]
        if member.descriptors > descriptors + DESCRIPTORS:
            found.append(f"leaked descriptors: {member.who} has {member.descriptors} open, before {descriptors}")
        if member.memory_mib > memory + GROWTH_MIB:
            found.append(f"memory: {member.who} takes {member.memory_mib:,.0f} MiB, before {memory:,.0f}")
    return found


def _most(footprint: Footprint) -> Mapping[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = {}
    for member in footprint.members:
        descriptors, memory = found.get(member.role, (0, 0.0))
        found[member.role] = max(descriptors, member.descriptors), max(memory, member.memory_mib)
    return found
