"""An environment on the disk: whether it is whole, and how it is begun and ended. Knows nothing of what is in it.

A part counts as made when its stamp says so, which is written last. While anything is changed the mark `unfinished` lies there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .errors import SetupError
from .parts import Part

STAMP = "installed"
UNFINISHED = "unfinished"
_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"


class Environment:
    """A folder that holds an environment, or will."""

    def __init__(self, folder: Path, root: Path) -> None:
        """`root` is the checkout."""
        self.folder, self.root = folder, root

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def problem(self, version: str | None = None) -> str | None:
        """Why it cannot be used as it is and has to be made anew; None if it is whole.

        Args:
            version: of the Python that is asked for, as 3.11; None if any will do.
        """
        stamps = [stamp for path in self.folder.glob(f"{STAMP}*") if (stamp := _read(path))]
        if not stamps or self._mark.exists() or not list(self.folder.glob("lib/python*/site-packages/pip/__main__.py")):
            return "it was left half-made"
        made_in, made_with = stamps[0]["folder"], stamps[0]["python"]
        if made_in != os.path.realpath(self.folder):
            return f"it was made in {made_in}"
        try:
            said = subprocess.check_output(
                [self.python, "-ISc", _ASK], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
            ).strip()
        except (OSError, subprocess.CalledProcessError):
            return "its Python does not run"
        if said != made_with:
            return f"it was made with Python {made_with}, and its Python is {said} now"
        if version not in (None, made_with):
            return f"it is of Python {made_with}, and Python {version} is asked for"
        return None

    def missing(self, parts: list[Part]) -> list[Part]:
        """Those of the parts that are not in it, or were made from something else."""
        return [p for p in parts if (_read(self._stamp(p)) or {}).get("made_from") != p.made_from(self.root)]

    def remove(self) -> None:
        """Empty its folder; whatever moment this is interrupted at, it will be known as half-made.

        Raises:
            SetupError: something in it cannot be removed.
        """
        if not self.folder.is_dir():
            return
        try:
            self._mark.touch()
            for path in sorted(self.folder.iterdir(), key=lambda path: path == self._mark):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise SetupError(
                f"{self.folder} is not whole and cannot be made anew: {error.filename} cannot be removed: {error.strerror}",
                f"remove it: rm -rf {self.folder}",
            ) from None

    def begin(self) -> None:
        """Mark it as unfinished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mark.touch()

    def leave(self) -> None:
        """Take the mark away: nothing was changed."""
        self._mark.unlink(missing_ok=True)

    def end(self, part: Part) -> None:
        """Mark `part` as made."""
        stamp = {
            "folder": os.path.realpath(self.folder),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "made_from": part.made_from(self.root),
        }
        beside = self.folder / f".{self._stamp(part).name}.new"
        beside.write_text(json.dumps(stamp), "utf-8")
        beside.replace(self._stamp(part))
        self._mark.unlink()

    @property
    def _mark(self) -> Path:
        return self.folder / UNFINISHED

    def _stamp(self, part: Part) -> Path:
        plain = part.name == "base" or "/" in part.name or self.folder.name == part.name
        return self.folder / (STAMP if plain else f"{STAMP}-{part.name}")


def _read(stamp: Path) -> dict[str, Any] | None:
    """What the stamp says; None if it is none."""
    try:
        said = json.loads(stamp.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and {"folder", "python", "made_from"} <= said.keys() else None
