"""What can be seen to go wrong before any work: of the Python, the machine, the folder and the disk. One sentence each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from triune_runtime.errors import TriuneError
from triune_server.binaries import check_machine

from .errors import SetupError
from .parts import Part

# Debian's and others' Python comes without the first two; one that was compiled where headers were missing, without others.
MODULES = ("venv", "ensurepip", "ssl", "zlib", "ctypes")


def check(folder: Path, needed_bytes: int) -> None:
    """Make sure that an environment can be made in `folder`, and serve.

    Raises:
        SetupError: it cannot.
    """
    check_python()
    check_path(folder)
    check_writable(folder)
    check_disk(folder, needed_bytes)


def check_python() -> None:
    """Make sure that this Python can make environments, and that the embedded server runs with it.

    Raises:
        SetupError: it cannot, or does not.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing = [name for name in MODULES if not _has(name)]
    if missing:
        raise SetupError(
            f"{sys.executable} (Python {version}) has no module {' and '.join(missing)}",
            f"install what it lacks, e.g. Debian's and Ubuntu's package python{version}-venv, or name another Python: "
            f"make PYTHON=/path/to/python{version}",
        )
    if sys.maxsize < 1 << 32:
        raise SetupError(f"{sys.executable} is of 32 bits; the packages have 64", "name another Python: make PYTHON=...")
    try:
        check_machine()
    except TriuneError as error:
        raise SetupError(str(error.args[0]), error.hint or "") from None


def check_fits(part: Part) -> None:
    """Make sure that the packages of `part` are for this Python.

    Raises:
        SetupError: they are for others.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if part.pythons and version not in part.pythons:
        known = " or ".join(part.pythons)
        raise SetupError(
            f"the packages of {part.name} are for Python {known}, and {sys.executable} is {version}",
            f"name another Python: make PYTHON=/path/to/python{part.pythons[0]}; or install them yourself, see docs/vllm.md",
        )


def _has(module: str) -> bool:
    try:
        exec(f"import {module}")
    except ImportError:
        return False
    return True


def check_path(folder: Path) -> None:
    """Make sure that pip's programs can lie in `folder`.

    Raises:
        SetupError: its path has a character that they cannot have in theirs.
    """
    path = str(folder.absolute())
    # A colon separates the folders of PATH, and `venv` refuses it; a line break ends the first line of a program.
    bad = sorted({c for c in path if c == ":" or not c.isprintable()})
    if bad:
        shown = " ".join("bytes that are not UTF-8" if "\udc80" <= c <= "\udcff" else repr(c) for c in bad)
        raise SetupError(
            f"no environment of Python can lie in {path!a}: its path has {shown}", "move the checkout to another folder"
        )


def check_writable(folder: Path) -> None:
    """Make sure that files can be written in `folder`, and programs run there.

    Raises:
        SetupError: they cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise SetupError(f"{folder} is a file", f"an environment is made there: remove it: rm {folder}")
    if folder.is_symlink() and not folder.exists():
        raise SetupError(f"{folder} is a link to {folder.readlink()}, which is not there", f"remove it: rm {folder}")
    place = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be made: {place.resolve()} cannot be written to: {error.strerror}",
            "make the folder writable, or make room on its disk; or use a checkout elsewhere",
        ) from None
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise SetupError(
            f"programs cannot run in {place.resolve()}: it is mounted with noexec",
            "mount it without that option, or use a checkout elsewhere",
        )


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Make sure that the disk has room.

    Raises:
        SetupError: it has less than `needed_bytes`.
    """
    free = shutil.disk_usage(nearest(folder)).free
    if free < needed_bytes:
        raise SetupError(
            f"{folder} needs about {needed_bytes / 1e9:.1f} GB, and the disk of {nearest(folder).resolve()} has "
            f"{free / 1e9:.1f} GB free",
            "make room on it, or use a checkout on another disk",
        )


def nearest(folder: Path) -> Path:
    """`folder`, or what of the folders above it is there."""
    while not folder.is_dir():
        folder = folder.parent
    return folder
