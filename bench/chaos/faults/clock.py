"""The wall clock jumps: by libfaketime, in the processes of the server under test alone."""

from __future__ import annotations

from pathlib import Path

from ..crowd import Crowd
from ..scene import Scene
from ..server import NotWell, Server

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1")
_JUMPS = ("+86400", "-86400", "+0", "+3600", "-7200", "+315360000", "-315360000")  # seconds; the long ones are ten years


def lacks_clock(server: Server) -> str:
    return "" if _library() else "libfaketime is not installed (as root: apt-get install libfaketime)"


def jumps(scene: Scene) -> None:
    """Start a server whose clock can be set, and set it forward and back under load."""
    file = scene.server.folder / "clock"
    file.write_text("+0")
    environment = {
        "LD_PRELOAD": str(_library()), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    try:
        scene.server.start(environment)
        with Crowd(scene.server.where, scene.server.texts, seed=str(scene.number)) as crowd:
            for jump in scene.chance.sample(_JUMPS, 4):
                file.write_text(jump)
                scene.note(f"clock {jump} s")
                scene.wait(2.5)
        scene.crowd = crowd
        code, said = scene.server.tell("status", 30.0)
        if code != 0:
            scene.problems.append(f"unseen: with another clock `status` ends with {code}: {said.strip()[:200]!r}")
    except NotWell as error:
        scene.problems.append(f"not well with another clock: {error}")
    if left := scene.server.stop():
        scene.problems.append(f"hang: {len(left)} processes did not end with another clock")


def _library() -> Path | None:
    return next((Path(one) for one in _LIBRARIES if Path(one).exists()), None)
