"""Processes that are killed, or stop without ending: under load, at the start, at the end, again and again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

from ..family import FRONT, GATEWAY, STUB, SUPERVISOR, TRITON, role_of
from ..scene import Scene
from ..server import DRAIN_S

_PAUSE_S = 2.0
_TOLD_S = 25.0  # until readiness says that a process hangs, before it is ended for that
_BACK_S = 75.0  # between two restarts, at the most


def kill(role: str) -> Callable[[Scene], None]:
    """Kill the process of a role under load."""
    return lambda scene: _kill(scene, find(scene, role))


def kill_any_stub(scene: Scene) -> None:
    """Kill the process of any model but the three that all requests go through."""
    known = {"generate", "tokenize", "detokenize"}
    others = sorted({role_of(process) for process in _stubs(scene)} - known)
    _kill(scene, find(scene, scene.chance.choice(others)))


def kill_all_stubs(scene: Scene) -> None:
    """Kill the processes of all models at once."""
    for process in _stubs(scene):
        _kill(scene, process)


def _stubs(scene: Scene) -> list[psutil.Process]:
    """The processes of all models.

    Raises:
        LookupError: there are none.
    """
    found = []
    for process in scene.server.family():
        with suppress(psutil.Error):
            if process.name().startswith(STUB):
                found.append(process)
    if not found:
        raise LookupError("no model has a process")
    return found


def kill_again_and_again(scene: Scene) -> None:
    """Kill a model's process as often as it comes back, five times."""
    for _ in range(5):
        _kill(scene, find(scene, "generate", _BACK_S))
        scene.wait(scene.chance.uniform(0.2, 2.0))


def stall(role: str) -> Callable[[Scene], None]:
    """Stop the process of a role, and never let it go on: alive to the system, dead to everyone else."""

    def do(scene: Scene) -> None:
        _halt(scene, find(scene, role))
        if role in (GATEWAY, FRONT):  # who asks elsewhere is answered
            return
        began = time.monotonic()
        while scene.server.says_ready():
            scene.wait(0.2)
            if time.monotonic() - began > _TOLD_S:
                scene.problems.append(f"false: it says that it is ready {_TOLD_S:.0f} s after {role} was stopped")
                return
        scene.note(f"not ready after {time.monotonic() - began:.0f} s")

    return do


def pause(role: str) -> Callable[[Scene], None]:
    """Stop the process of a role for two seconds, as a busy machine or a debugger does."""

    def do(scene: Scene) -> None:
        process = find(scene, role)
        _halt(scene, process)
        scene.wait(_PAUSE_S)
        with suppress(psutil.Error):
            process.resume()

    return do


def ask_status_of_a_paused_supervisor(scene: Scene) -> None:
    """`triune status` while the supervisor does not move."""
    process = find(scene, SUPERVISOR)
    _halt(scene, process)
    code, said = scene.server.tell("status", 30.0)
    if code is None:
        scene.problems.append("hang: `triune status` did not end within 30 s beside a supervisor that does not move")
    elif "Traceback" in said:
        scene.problems.append(f"traceback: `triune status` said {said[-200:]!r}")
    process.resume()


def during_start(role: str, how: str) -> Callable[[Scene], None]:
    """Start it, and kill or stop a process of it before it is ready."""

    def do(scene: Scene) -> None:
        scene.server.begin()
        process = find(scene, role)
        scene.wait(scene.chance.uniform(0.0, 1.5))
        (_kill if how == "kill" else _halt)(scene, process)

    return do


def during_restart(role: str, how: str) -> Callable[[Scene], None]:
    """Kill tritonserver under load, and kill or stop another process while it starts again."""

    def do(scene: Scene) -> None:
        before = {process.pid for process in scene.server.members(role)} if role not in (GATEWAY, FRONT) else set()
        find(scene, TRITON).kill()
        process = find(scene, role, _BACK_S, but=before)
        scene.wait(scene.chance.uniform(0.0, 1.5))
        (_kill if how == "kill" else _halt)(scene, process)

    return do


def end(number: signal.Signals) -> Callable[[Scene], None]:
    """Tell it to end, under load."""

    def do(scene: Scene) -> None:
        find(scene, SUPERVISOR).send_signal(number)

    return do


def during_stop(role: str, how: str) -> Callable[[Scene], None]:
    """Tell it to end, and kill or stop a process of it before it has."""

    def do(scene: Scene) -> None:
        process = find(scene, role)
        find(scene, SUPERVISOR).send_signal(scene.chance.choice((signal.SIGTERM, signal.SIGINT)))
        scene.wait(scene.chance.uniform(0.0, DRAIN_S / 3))
        (_kill if how == "kill" else _halt)(scene, process)

    return do


def find(scene: Scene, role: str, timeout_s: float = 20.0, *, but: Collection[int] = ()) -> psutil.Process:
    """A process of a role, once there is one.

    Args:
        but: none of these.

    Raises:
        LookupError: there is none for so long.
    """
    until = time.monotonic() + timeout_s
    while not (found := [one for one in scene.server.members(role) if one.pid not in but]):
        if time.monotonic() > until:
            raise LookupError(f"no process of {role} for {timeout_s:.0f} s; there are {', '.join(scene.server.roles())}")
        time.sleep(0.05)
    return scene.chance.choice(found)


def _kill(scene: Scene, process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        scene.note(f"killed {process.pid}")
        process.kill()


def _halt(scene: Scene, process: psutil.Process) -> None:
    def go_on() -> None:
        with suppress(psutil.Error):
            process.resume()

    with suppress(psutil.NoSuchProcess):
        scene.note(f"stopped {process.pid}")
        process.suspend()
    # Not for good where nobody has ended it: what became of the server is looked at before that.
    scene.undo.callback(go_on)
