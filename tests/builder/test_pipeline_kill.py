"""Run: pytest tests/builder/test_pipeline_kill.py; builds are killed with SIGKILL before many of their file operations.

The killing is done by a process of its own (this file as a program), which forks a child for every build.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fakes.tiny_build import LIMITS, TinyTools, settings, snapshot, write_checkpoint
from triune_builder.plan import BuildPlan, repository_of
from triune_builder.progress import Display

EVENTS = 12  # kills before a file operation, spread over all of them, besides one before every rename
MOMENTS = 8  # kills at a random moment


def test_a_build_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["killed"] >= EVENTS  # the kills really happened
    assert found["events"] > 100


class Yard:
    """A folder with a published build, of which the next version is to be built."""

    def __init__(self, root: Path) -> None:
        self.root, self.base = root / "yard", root / "base"
        self.model = write_checkpoint(self.base / "tiny.gguf", seed=0)
        self.repository = repository_of(str(self.root / "tiny.gguf"), "cpu", self.root / "build")
        self.plan = BuildPlan(model=str(self.root / "tiny.gguf"), limits=LIMITS)
        settings(self.base)
        self.reset()
        self.in_child()
        self.old = snapshot(self.repository)
        shutil.copytree(self.root, root / "published", symlinks=True)
        self.base = root / "published"
        self.reset()
        self.events: list[str] = self.in_child(count=True)
        self.new = snapshot(self.repository)
        assert self.new != self.old

    def reset(self) -> None:
        """The published build, and changed inputs."""
        published = (self.base / "build").exists()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.base, self.root, symlinks=True)
        if published:
            write_checkpoint(self.root / "tiny.gguf", seed=1)
            (self.root / "template" / "tokenize" / "1" / "model.py").write_text("# version 2\n")

    def in_child(self, *, count: bool = False, kill_at: int | None = None, kill_after_s: float | None = None) -> Any:
        """Build in a forked process; its file operations when they are counted, or None if it was killed."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(writer, kill_at if kill_at is not None else -1 if count else None)
        os.close(writer)
        if kill_after_s is not None:
            threading.Timer(kill_after_s, os.kill, (child, signal.SIGKILL)).run()
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert os.WEXITSTATUS(status) == 0, f"a build failed: {told}"
        return json.loads(told)

    def _child(self, writer: int, kill_at: int | None) -> None:
        """Never returns."""
        seen: list[str] = []

        def watch(event: str, args: tuple[Any, ...]) -> None:
            if event.split(".")[0] in ("open", "os", "shutil", "fcntl") and str(self.root) in str(args):
                if len(seen) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen.append(event)

        try:
            if kill_at is not None:
                sys.addaudithook(watch)
            TinyTools().build(self.plan, settings(self.root), display=Display(quiet=True))
            os.write(writer, json.dumps(seen).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, repr(error).encode())
            os._exit(1)

    def wrong_after(self, **kill: Any) -> tuple[bool, list[str]]:
        """Kill a build, look, build again, look. Was it killed, and what is not as it should be?"""
        self.reset()
        killed = self.in_child(**kill) is None
        wrong = []
        if self.repository.exists():
            if snapshot(self.repository) not in (self.old, self.new):
                wrong.append("half a repository is published")
        elif not list(self.repository.parent.glob(".old-*")):
            wrong.append("the published repository is lost")
        self.in_child()
        if snapshot(self.repository) != self.new:
            wrong.append("the next build gives something else")
        left = [str(p) for p in (self.root / "build").rglob("*") if p.name.startswith((".tmp-", ".old-"))]
        if left:
            wrong.append(f"left behind: {left}")
        return killed, wrong


def main(root: Path) -> None:
    yard, chance = Yard(root), random.Random(7)
    count = len(yard.events)
    parts = [i * count // EVENTS for i in range(EVENTS + 1)]
    points = {chance.randrange(a, b) for a, b in itertools.pairwise(parts)}
    points |= {i for i, event in enumerate(yard.events) if event == "os.rename"}
    began = time.monotonic()
    yard.reset()
    yard.in_child()
    usual = time.monotonic() - began
    kills: list[dict[str, Any]] = [{"kill_at": point} for point in sorted(points)]
    kills += [{"kill_after_s": chance.uniform(0, usual)} for _ in range(MOMENTS)]
    if len(sys.argv) > 2:  # every operation, for a thorough look by hand
        kills = [{"kill_at": point} for point in range(count)]
    results = [(kill, *yard.wrong_after(**kill)) for kill in kills]
    wrong = [[str(kill), w] for kill, _, ws in results for w in ws]
    print(json.dumps({"events": count, "killed": sum(killed for _, killed, _ in results), "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
