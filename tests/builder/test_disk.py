"""A disk that is full or cannot be written to is one sentence, and what was published stays.

Run: pytest tests/builder/test_disk.py
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from fakes.tiny_build import LIMITS, TinyTools, settings, snapshot, write_checkpoint
from triune_builder import disk
from triune_builder.errors import BuildError
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display

Usage = namedtuple("Usage", "total used free")


def build_tiny(root: Path, tools: TinyTools, seed: int = 0) -> Path:
    model = write_checkpoint(root / "tiny.gguf", seed=seed)
    return tools.build(BuildPlan(model=str(model), limits=LIMITS), settings(root), display=Display(quiet=True)).repository


class FullDisk(TinyTools):
    """On whose disk there is no room for an engine."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def compile(self, *args: object) -> object:  # type: ignore[override]
        raise self._error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full: "),
        (OSError(errno.ENOSPC, "No space left on device", "/x/model.data"), "is full: "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full"),
        (OSError(errno.EROFS, "Read-only file system", "/x/model.data"), "/x/model.data cannot be used: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x cannot be used: Permission denied"),
        (OSError(errno.EFBIG, "File too large"), "cannot be used: File too large"),
    ],
)
def test_what_the_disk_refuses_is_one_sentence_with_a_way_on(tmp_path: Path, error: OSError, words: str) -> None:
    published = build_tiny(tmp_path, TinyTools())
    before = snapshot(published)
    with pytest.raises(BuildError) as caught:
        build_tiny(tmp_path, FullDisk(error), seed=1)
    message, hint = str(caught.value.args[0]), caught.value.hint
    assert words in message and "\n" not in message and hint
    assert snapshot(published) == before
    build_tiny(tmp_path, TinyTools(), seed=1)
    assert snapshot(published) != before, "with room again it goes on"


def test_a_library_that_tells_of_a_full_disk_in_its_own_words_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError("4096 requested and 100 written")  # as numpy's
    assert disk.explained(error, tmp_path / "not" / "there") is None
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(1, 1, 0))
    told = disk.explained(error, tmp_path / "not" / "there")
    assert told is not None and "is full: 0.0 MB are free" in str(told)
    assert disk.explained(RuntimeError("cannot write protobuf"), tmp_path) is not None


def test_a_bug_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        build_tiny(tmp_path, FullDisk(KeyError("x")))


def test_a_file_in_the_place_of_the_build_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    with pytest.raises(BuildError, match=r"build.* cannot be used: (Not a directory|File exists)"):
        build_tiny(tmp_path, TinyTools())


def test_the_command_says_one_sentence_when_files_may_not_grow(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "triune_server.entry", "build", "--model=r1-nano", "--precision=fp32", "--verify=none"]

    def no_big_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [*command, f"--build-dir={tmp_path / 'build'}"], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}, preexec_fn=no_big_files,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert lines[-2].startswith("error: ") and lines[-2].endswith("File too large") and lines[-1].startswith("hint: ")
