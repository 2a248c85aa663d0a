"""Several people who start, look at and stop the same server at once."""

from __future__ import annotations

import threading

from ..family import FRONT, GATEWAY, SUPERVISOR
from ..scene import Scene

_LIMIT_S = 90.0


def start_beside_a_server(scene: Scene) -> None:
    """`serve`, `up` and `status` at once beside a server that runs: it is still there, and still seen."""
    _at_once(scene, ["serve", "up", "status", "up"])
    _check_seen(scene)


def start_twice(scene: Scene) -> None:
    """Two `serve` and two `up` at once where nothing runs: one server serves, and is seen."""
    _at_once(scene, ["up", "up", "status"], begin=scene.chance.choice((0, 1)))
    _check_seen(scene)


def start_and_stop(scene: Scene) -> None:
    """`up`, `down`, `status` and `serve` at once, in any order: what runs then can be seen and stopped."""
    verbs = ["up", "down", "status", "up", "down"]
    scene.chance.shuffle(verbs)
    _at_once(scene, verbs, begin=1)
    scene.wait(1.0)
    _check_seen(scene)
    code, said = scene.server.tell("down", _LIMIT_S)
    if code is None:
        scene.problems.append(f"hang: `triune down` did not end within {_LIMIT_S:.0f} s")
    scene.note(f"down: {said.strip()[:100]}")


def start_after_kill(scene: Scene) -> None:
    """kill -9 of the supervisor, and `up` at once: it serves."""
    for process in scene.server.members(SUPERVISOR):
        process.kill()
    code, said = scene.server.tell("up", _LIMIT_S)
    if code != 0:
        scene.problems.append(f"not started: `up` right after the kill ended with {code}: {said.strip()[-300:]}")


def _at_once(scene: Scene, verbs: list[str], begin: int = 0) -> None:
    """Run them at nearly the same moment; `begin` servers in the foreground first."""
    for _ in range(begin):
        scene.server.begin()
        scene.wait(scene.chance.uniform(0.0, 2.0))

    def one(verb: str, wait_s: float) -> None:
        scene.wait(wait_s)
        code, said = scene.server.tell(verb, _LIMIT_S)
        if code is None:
            scene.problems.append(f"hang: `triune {verb}` did not end within {_LIMIT_S:.0f} s")
        if "Traceback" in said:
            scene.problems.append(f"traceback: `triune {verb}` said {said[said.index('Traceback') :][-300:]!r}")
        scene.note(f"{verb} after {wait_s:.2f} s: {code}")

    threads = [threading.Thread(target=one, args=(verb, scene.chance.uniform(0.0, 1.0)), daemon=True) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _LIMIT_S)


def _check_seen(scene: Scene) -> None:
    """Whether `status` says of the server what is so."""
    code, said = scene.server.tell("status", 30.0)
    runs = len(scene.server.members(SUPERVISOR))
    if code is None:
        scene.problems.append("hang: `triune status` did not end within 30 s")
    elif runs and code != 0:
        scene.problems.append(f"unseen: {runs} supervisors run, and `status` says {said.strip()[:200]!r}")
    elif not runs and code == 0:
        scene.problems.append(f"false: nothing runs, and `status` says {said.strip()[:200]!r}")
    if runs > 1 or any(len(scene.server.members(role)) > 1 for role in (GATEWAY, FRONT)):
        scene.problems.append(f"twice: {runs} supervisors run in one run folder")
