"""What a machine runs out of: disk, descriptors, threads, memory. Only for the processes of the server under test."""

from __future__ import annotations

import errno
import itertools
import resource
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from ..scene import Scene
from ..server import Server
from .signals import find

_PIDS = Path("/sys/fs/cgroup/pids")
_HELD_S = 3.0


def lacks_disk(server: Server) -> str:
    return "" if server.own_disk else "no disk of its own can be mounted (needs root)"


def lacks_pids(server: Server) -> str:
    return "" if (_PIDS / "cgroup.procs").exists() and _writable(_PIDS) else "threads cannot be limited (needs cgroup's pids)"


def full_disk(then: str) -> Callable[[Scene], None]:
    """No byte is left on the disk of the run folder; then a process dies, or none does.

    Args:
        then: the role of who dies; empty: nobody.
    """

    def do(scene: Scene) -> None:
        filler = scene.server.run_folder / "filler"
        scene.undo.callback(lambda: filler.unlink(missing_ok=True))
        _fill(filler)
        if then:
            find(scene, then).kill()
        scene.wait(4.0)

    return do


def full_disk_at_start(scene: Scene) -> None:
    """Start it where no byte can be written."""
    filler = scene.server.run_folder / "filler"
    scene.undo.callback(lambda: filler.unlink(missing_ok=True))
    _fill(filler)
    scene.server.begin()
    scene.wait(6.0)


def no_descriptors(role: str) -> Callable[[Scene], None]:
    """A process may open nothing more, and many connect to it."""

    def do(scene: Scene) -> None:
        process = find(scene, role)
        used = {int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()}
        _limit(scene, process, resource.RLIMIT_NOFILE, next(n for n in itertools.count() if n not in used))
        for n in range(30):
            connection = socket.socket()
            connection.settimeout(0.2)
            scene.undo.callback(connection.close)
            with suppress(OSError):
                connection.connect(("127.0.0.1", scene.server.ports[("http", "openai", "grpc")[n % 3]]))
        scene.wait(_HELD_S)

    return do


def no_memory(role: str) -> Callable[[Scene], None]:
    """A process may have 8 MiB more than it has: neither large arrays nor the stacks of new threads."""

    def do(scene: Scene) -> None:
        process = find(scene, role)
        _limit(scene, process, resource.RLIMIT_AS, process.memory_info().vms + (8 << 20))
        scene.wait(_HELD_S)

    return do


def no_files(role: str) -> Callable[[Scene], None]:
    """A process can write no byte to any file, as beyond a quota."""

    def do(scene: Scene) -> None:
        _limit(scene, find(scene, role), resource.RLIMIT_FSIZE, 0)
        scene.wait(_HELD_S)

    return do


def no_threads(role: str) -> Callable[[Scene], None]:
    """A process can start no thread and no process."""

    def do(scene: Scene) -> None:
        process = find(scene, role)
        group = _PIDS / f"triune-chaos-{uuid.uuid4().hex}"
        group.mkdir()
        scene.undo.callback(_leave, group)
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / "pids.max").write_text(str(process.num_threads()))
        scene.wait(_HELD_S)

    return do


def _limit(scene: Scene, process: psutil.Process, which: int, most: int) -> None:
    before = process.rlimit(which)

    def back() -> None:
        with suppress(psutil.Error):
            process.rlimit(which, before)

    process.rlimit(which, (most, before[1]))
    scene.undo.callback(back)
    scene.note(f"limited {process.pid} to {most}")


def _fill(file: Path) -> None:
    block = b"\0" * (1 << 20)
    with suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            if not out.write(block):
                raise OSError(errno.ENOSPC, "full")
    with suppress(OSError), file.open("ab", buffering=0) as out:
        while out.write(b"\0"):
            pass


def _leave(group: Path) -> None:
    (group / "pids.max").write_text("max")
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (_PIDS / "cgroup.procs").write_text(pid)
    with suppress(OSError):
        group.rmdir()


def _writable(folder: Path) -> bool:
    probe = folder / f"triune-chaos-{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
