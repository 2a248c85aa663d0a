"""The wall clock jumps, in the processes of the server under test alone. What counts seconds (CLOCK_MONOTONIC) stays as it is.

libfaketime would do, but for sleeping: with the monotonic clock left alone, Python's `time.sleep` fails under it (0.9.10).
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from ..crowd import Crowd
from ..scene import Scene
from ..server import NotWell, Server

_HOUR, _DAY, _YEARS = 3600, 86_400, 315_360_000  # the last is ten years
_JUMPS = (_DAY, -_DAY, 0, _HOUR, -2 * _HOUR, _YEARS, -_YEARS)  # seconds from the true time
# The offset lies in a file that all processes map.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile long long *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(getenv("TRIUNE_CHAOS_CLOCK") ? getenv("TRIUNE_CHAOS_CLOCK") : "", O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
}
int clock_gettime(clockid_t which, struct timespec *now) {
    if (!real) begin();
    int failed = real(which, now);
    if (!failed && offset && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}
time_t time(time_t *told) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (told) *told = exact.tv_sec;
    return exact.tv_sec;
}
"""


def lacks_clock(server: Server) -> str:
    return "" if shutil.which("cc") else "no clock can be made (needs a C compiler, cc)"


def jumps(scene: Scene) -> None:
    """Start a server whose clock can be set, and set it forward and back under load."""
    file = scene.server.folder / "clock"
    _set(file, 0)
    try:
        scene.server.start({"LD_PRELOAD": str(_library(scene.server.folder)), "TRIUNE_CHAOS_CLOCK": str(file)})
        if strangers := [role for role in scene.server.roles() if role and not _has_clock(scene, role, file)]:
            scene.problems.append(f"nothing met: {', '.join(strangers)} have the machine's own clock")
        with Crowd(scene.server.where, scene.server.texts, seed=str(scene.number)) as crowd:
            for jump in scene.chance.sample(_JUMPS, 4):
                _set(file, jump)
                scene.note(f"clock {jump:+,} s")
                scene.wait(2.5)
        scene.crowd = crowd
        code, said = scene.server.tell("status", 30.0)
        if code != 0:
            scene.problems.append(f"unseen: after jumps of the clock `status` ends with {code}: {said.strip()[:200]!r}")
    except NotWell as error:
        scene.problems.append(f"not well with another clock: {error}")
    if left := scene.server.stop():
        scene.problems.append(f"hang: {len(left)} processes did not end with another clock")


def _has_clock(scene: Scene, role: str, file: Path) -> bool:
    """Whether all processes of a role read the time from a file."""
    return all(
        str(file) in Path(f"/proc/{process.pid}/maps").read_text("utf-8", "replace") for process in scene.server.members(role)
    )


def _set(file: Path, seconds: int) -> None:
    """In place: the file is mapped."""
    with file.open("r+b" if file.exists() else "wb") as out:
        out.write(struct.pack("q", seconds))


def _library(folder: Path) -> Path:
    source, made = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE, "utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True, capture_output=True)
    return made
