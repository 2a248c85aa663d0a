"""Checks of what the system lets a process have: open files, processes, locked memory, shared memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator

from triune_runtime import cgroup

from ..errors import ServerError
from ..shared_memory import check_shared_memory
from .context import Context
from .finding import Finding, bad, good, poor

_FILES, _FEWEST_FILES = 4096, 256  # a client takes two of the front's, and two of the gateway's
_PROCESSES, _FEWEST_PROCESSES = 1024, 256  # a server has some 150 threads
_KINDS = {"open files": resource.RLIMIT_NOFILE, "processes": resource.RLIMIT_NPROC, "locked memory": resource.RLIMIT_MEMLOCK,
          "address space": resource.RLIMIT_AS}  # fmt: skip


def ulimits(context: Context) -> Iterator[Finding]:
    """What a shell's `ulimit` shows."""
    pid = context.running.pid if context.running else 0  # else what is started here will have this process's own
    yield files_limit(_soft("open files", pid))
    yield processes_limit(_soft("processes", pid), cgroup.pids_limit(context))
    yield from other_limits(_soft("locked memory", pid), _soft("address space", pid), wants_gpu=context.wants_gpu)


def files_limit(most: int | None) -> Finding:
    """Open files."""
    return _judged(
        "open files", most, _FILES, _FEWEST_FILES, "ulimit -n 65536; LimitNOFILE of systemd; docker run --ulimit nofile=65536"
    )


def processes_limit(most: int | None, group: int | None) -> Finding:
    """Processes and threads: the user's limit and the cgroup's."""
    least = min((one for one in (most, group) if one is not None), default=None)
    remedy = "ulimit -u 4096; TasksMax of systemd; docker run --pids-limit 4096"
    return _judged("processes and threads", least, _PROCESSES, _FEWEST_PROCESSES, remedy)


def other_limits(locked: int | None, space: int | None, *, wants_gpu: bool) -> Iterator[Finding]:
    """Memory that may be locked, as network cards of several machines need it, and addresses."""
    if locked is not None and wants_gpu:
        remedy = "for InfiniBand between machines: ulimit -l unlimited; docker run --ulimit memlock=-1"
        yield poor("locked memory", f"at most {locked / 1e6:,.0f} MB", remedy)
    if space is not None:
        yield bad(
            "address space",
            f"at most {space / 1e9:,.0f} GB",
            "ulimit -v unlimited: weights are mapped, and CUDA reserves hundreds of GB",
        )


def shared_memory(context: Context) -> Iterator[Finding]:
    """/dev/shm, over which Triton talks to its processes."""
    folder = context.root / "dev/shm"
    try:
        check_shared_memory(folder)
    except ServerError as error:
        yield bad("/dev/shm", str(error.args[0]), error.hint or "")
        return
    yield good("/dev/shm", f"{shutil.disk_usage(folder).total / 1e6:,.0f} MB" if folder.exists() else "not to be seen")


def _soft(name: str, pid: int) -> int | None:
    """Of a process, 0 for this one. None: no limit."""
    soft, _ = resource.prlimit(pid, _KINDS[name])
    return None if soft == resource.RLIM_INFINITY else soft


def _judged(subject: str, most: int | None, enough: int, least: int, remedy: str) -> Finding:
    if most is None:
        return good(subject, "no limit")
    if most < least:
        return bad(subject, f"at most {most:,}; a server needs {least:,}", remedy)
    return (
        poor(subject, f"at most {most:,}; a busy server needs {enough:,}", remedy)
        if most < enough
        else good(subject, f"at most {most:,}")
    )


CHECKS = (ulimits, shared_memory)
