"""docker/install-locked: a registry that breaks off in the middle of a file ends no build of an image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.real_server import ROOT


def _script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")), "utf-8")
    path.chmod(0o755)
    return path


def _install(folder: Path, failures: int) -> tuple[int, list[str]]:
    """The exit code with a pip that fails so often at first, and what it was called with each time."""
    calls = folder / "calls"
    _script(folder / "sleep")
    python = _script(folder / "python", f'echo "$*" >> {calls}', f"[ $(wc -l < {calls}) -gt {failures} ] || exit 2")
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ROOT / "docker" / "install-locked", python, "-r", "a file.txt"], env=environment, capture_output=True, timeout=60
    )
    return done.returncode, calls.read_text("utf-8").splitlines()


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_what_breaks_off_is_tried_again(tmp_path: Path, failures: int) -> None:
    code, calls = _install(tmp_path, failures)
    assert code == 0
    assert calls == ["-m pip install --no-deps --require-hashes -r a file.txt"] * (failures + 1)


def test_a_registry_that_never_answers_ends_the_build(tmp_path: Path) -> None:
    code, calls = _install(tmp_path, 9)
    assert code == 1
    assert len(calls) == 4
