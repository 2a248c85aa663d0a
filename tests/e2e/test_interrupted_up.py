"""Ctrl-C at random moments of `make up`, of the real Makefile in a fresh checkout: quiet each time, and then it succeeds.

Slow, some 10 to 20 minutes: pytest -m slow tests/e2e/test_interrupted_up.py; prints a line for each moment with -s.
`tests/setup/test_interrupted.py` and `tests/builder/test_interrupted.py` are its quick forms.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.clean_environment import ROOT, source_files
from support.interrupting import interrupt, leftover
from support.real_server import free_port

MOMENTS = {"set-up": 8, "build": 7, "start": 5}


class Checkout:
    """A fresh one, in a path with a space."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in source_files():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
        hidden = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "PYTHONPATH", "VIRTUAL_ENV")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.ports = [f"{name}_PORT={free_port()}" for name in ("HTTP", "GRPC", "METRICS", "OPENAI")]

    def command(self, verb: str) -> list[str]:
        return ["make", "--no-print-directory", verb, "MODEL=r1-nano", "PRECISION=fp32", *self.ports]

    def run(self, verb: str) -> float:
        """The verb, uninterrupted; the seconds that it took."""
        began = time.monotonic()
        done = subprocess.run(
            self.command(verb), cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done
        return time.monotonic() - began

    def whole(self) -> dict[str, bytes]:
        """The published repositories' own files that say what they are."""
        return {str(p): p.read_bytes() for p in sorted(self.root.glob("build/*/cpu/repository/generate/1/engine.json"))}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "a checkout")
    yield made
    subprocess.run(made.command("down"), cwd=made.root, env=made.environment, check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.triton
def test_make_up_is_interrupted_anywhere_and_then_succeeds(checkout: Checkout) -> None:
    usual = {"set-up": checkout.run("install"), "build": checkout.run("engine"), "start": checkout.run("up")}
    engine = checkout.whole()
    checkout.run("down")

    def no_environment() -> None:
        (checkout.root / ".venv" / "installed").unlink(missing_ok=True)

    def no_build() -> None:
        shutil.rmtree(checkout.root / "build", ignore_errors=True)

    before: dict[str, Callable[[], object]] = {
        "set-up": no_environment,
        "build": no_build,
        "start": lambda: (checkout.run("down"), checkout.run("engine")),
    }
    chance, began = random.Random(20), 0
    for phase, count in MOMENTS.items():
        if phase == "build":
            checkout.run("install")
        for number in range(count):
            before[phase]()
            # One in each part of the phase, so that all of it is met; nothing of the others.
            after = usual[phase] * (number + chance.random()) / count
            ended = interrupt(checkout.command("up"), after, checkout.environment, checkout.root)
            print(f"{phase:<7} after {after:5.1f} of {usual[phase]:5.1f} s: code {ended.code}, ended in {ended.seconds:4.1f} s")
            print("        " + repr(ended.said.splitlines()[-1:]), flush=True)
            assert ended.quietly, ended
            if ended.done or "ready after" in ended.said:  # it came too late: the server runs, and that was said
                checkout.run("install")
                checkout.run("down")
                continue
            began += 1
            assert not leftover(checkout.root)
            assert not checkout.whole() or checkout.whole() == engine
    assert began >= sum(MOMENTS.values()) * 2 // 3, "too few were interrupted to say anything"
    checkout.run("down")
    checkout.run("up")
    assert checkout.whole() == engine, "the engine is the same as without interruptions"
