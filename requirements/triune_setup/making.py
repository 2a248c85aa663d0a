"""Makes an environment, and what is in it. Imports what not every Python has: the checks come before."""

from __future__ import annotations

import ensurepip
import shlex
import sys
import time
import zipfile
from pathlib import Path

from .environment import Environment
from .errors import SetupError
from .parts import Part
from .running import PipRun, plain_environment, run
from .shown import Shown, progress


def create(environment: Environment, problem: str, shown: Shown, lock: int) -> None:
    """An environment that holds pip alone, and is marked as unfinished until a part is in it.

    Args:
        problem: why it is made anew, if there is one.

    Raises:
        SetupError: it cannot be made.
    """
    folder = environment.folder
    if folder.is_dir() and any(folder.iterdir()):
        shown.say(f"{'environment':<10} {folder} is made anew: {problem}")
        environment.remove()
    else:
        shown.say(f"{'environment':<10} {folder} is made with Python {sys.version.split()[0]}")
    environment.begin()
    temporary = folder.absolute() / "tmp"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-m", "venv", str(folder)]
    said: list[str] = []
    began, files = time.monotonic(), files_of_pip()

    def tick() -> None:
        there = sum(1 for _ in folder.glob("lib/python*/site-packages/pip/**/*.py*"))
        shown.update("install", progress(min(there / files, 0.99), time.monotonic() - began, "pip"))

    if code := run(command, plain_environment(temporary), lock, said.append, tick):
        raise explained_venv(command, said, code)


def install(environment: Environment, part: Part, shown: Shown, lock: int) -> None:
    """Install a part into an environment that has pip.

    Raises:
        SetupError: pip fails.
    """
    environment.begin()
    changed = False
    for step in part.steps:
        pip = PipRun(environment, step, shown, lock)
        try:
            pip.run()
        except BaseException:
            if not (changed or pip.changed):
                environment.leave()  # as whole as before, say without a network
            raise
        changed = True
    environment.end(part)


def explained_venv(command: list[str], said: list[str], code: int) -> SetupError:
    """The sentence for an environment that could not be begun."""
    text = "\n".join(said)
    for cause, remedy in (("No space left on device", "make room on the disk"), ("Permission denied", "make it writable")):
        if cause in text:
            return SetupError(f"{command[-1]} cannot be made: {cause}", remedy)
    reason = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {code}")
    return SetupError(
        f"{shlex.join(command)} fails: {reason}", "see whether it works by hand; or name another Python: make PYTHON=..."
    )


def files_of_pip() -> int:
    """How many files of Python code pip has when it is unpacked and compiled, about."""
    for wheel in Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return 2 * sum(name.endswith(".py") for name in archive.namelist())
    return 1000  # it lies elsewhere
