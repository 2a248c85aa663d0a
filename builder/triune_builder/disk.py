"""What a disk can do to a build, as one sentence: full, read-only, not ours to write to."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from .errors import BuildError

_FULL = 1 << 16  # bytes free: libraries tell of a full disk in words of their own, without its number
_ROOM = "make room on the disk, or build elsewhere: --build-dir FOLDER, make's BUILD_DIR=FOLDER"
_WAYS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit on files: ulimit -f unlimited",
    errno.EROFS: "build elsewhere: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
    errno.EACCES: "make it writable, or build elsewhere: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
    errno.EPERM: "make it writable, or build elsewhere: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
    errno.ENOTDIR: "name a folder, or the path of one that can be made: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
    errno.EEXIST: "name a folder, or the path of one that can be made: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
    errno.EIO: "the disk fails to read or write: check it, or build elsewhere: --build-dir FOLDER, make's BUILD_DIR=FOLDER",
}


def explained(error: Exception, build_dir: Path) -> BuildError | None:
    """The sentence for what stopped a build that writes to `build_dir`; None if the disk is not to blame."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in _WAYS and _free(build_dir) < _FULL:
        number = errno.ENOSPC
    if number is None or number not in _WAYS:
        return None
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = f": {_free(build_dir) / 1e6:,.1f} MB are free" if number == errno.ENOSPC else ""
        return BuildError(f"the disk of {build_dir} is full{free}", _WAYS[number])
    named = getattr(error, "filename", None) or build_dir
    reason = getattr(error, "strerror", None) or "it cannot be written"
    return BuildError(f"{named} cannot be used: {reason}", _WAYS[number])


def _free(folder: Path) -> float:
    """Bytes that are free on the disk of `folder` or of the nearest folder above that is there."""
    for place in (folder.absolute(), *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return float("inf")
