"""Results of finished stages under the hash of what went into them, and the lock of one build at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BuildError, option

_TMP, _PART = ".tmp-", ".part-"
_SHOWN = 32  # hex digits of a hash in a folder's name


class StageCache:
    """Folders `<stage>-<hash>`; one that has its name is complete, because it got it by a rename.

    A result that is being made lies in `.part-<stage>-<hash>`, also after an interruption: it may be taken up again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, stage: str, key: str) -> Path | None:
        """The stage's result, marked as used now; None if it has to be made."""
        path = self._path(stage, key)
        if not path.is_dir():
            return None
        os.utime(path)
        return path

    def make(self, stage: str, key: str, fill: Callable[[Path], None], *, resume: bool = False) -> Path:
        """Let `fill` write a result into a folder, then give the folder its name.

        Args:
            resume: what an interrupted `fill` of this key left is in the folder; otherwise it is empty. What other keys
                left of this stage is removed.
        """
        path = self._path(stage, key)
        beside = self._root / f"{_PART}{path.name}"
        for left in self._root.glob(f"{_PART}{stage}-*"):
            if not (resume and left == beside):
                shutil.rmtree(left)
        beside.mkdir(parents=True, exist_ok=True)
        try:
            fill(beside)
        except BuildError:  # it would fail again
            shutil.rmtree(beside)
            raise
        if path.exists():
            path.rename(beside.with_name(f"{_TMP}old-{path.name}"))
        beside.rename(path)
        self.clean()
        return path

    def leftovers(self) -> Iterator[Path]:
        """What interrupted builds left."""
        if self._root.is_dir():
            yield from (p for p in sorted(self._root.iterdir()) if p.name.startswith(_TMP))

    def clean(self) -> None:
        """Remove what interrupted builds left. Only for the holder of the lock."""
        for path in self.leftovers():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def prune(self, stage: str, keep: int) -> None:
        """Remove all but the `keep` results of `stage` used last."""
        entries = sorted(self._root.glob(f"{stage}-*"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        for path in entries[keep:]:
            doomed = path.with_name(f"{_TMP}{path.name}")  # renamed first: a folder with its name is complete
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed)

    def _path(self, stage: str, key: str) -> Path:
        return self._root / f"{stage}-{key[:_SHOWN]}"


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when the process ends, however it ends.

    Raises:
        BuildError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BuildError(
                f"a build is already running in {path.parent}: {holder}",
                f"wait until it is done, or build in another folder: {option('build_dir', f'{path.parent}-2')}",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, {what}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
