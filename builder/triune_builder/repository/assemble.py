"""Puts a model repository together beside the published one and swaps them. Knows Triton's folder layout, no engine.

A folder holds `repository` and, while a build runs or after it was killed, `.tmp-*` (being put together) and `.old-*`
(just replaced). `repair` makes the folder whole again whatever was interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..errors import BuildError
from ..fingerprint import source_files

ENGINE_FOLDER = "generate/1"
REPOSITORY = "repository"
_TMP, _OLD = ".tmp-", ".old-"


def assemble(
    template: Path,
    folder: Path,
    *,
    name: str,
    linked: Mapping[str, Path],
    finish: Callable[[Path], None],
) -> Path:
    """Build `folder`/repository from `template` and replace the one that is there.

    Args:
        template: the checked-in model repository: constant configs and code.
        name: of this build, for the temporary folder.
        linked: file name in generate/1 -> the file to put there; hard links where the file system allows.
        finish: writes what else is needed into the new repository and checks it; if it raises, nothing is published.

    Raises:
        BuildError: the template is not a model repository.
    """
    if not (template / "generate" / "config.pbtxt").is_file():
        raise BuildError(
            f"{template} is no model repository: it has no generate/config.pbtxt",
            "build in a checkout of the project, or name its folder with --model-repository",
        )
    new = folder / f"{_TMP}{name}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    copy_template(template, new)
    (new / ENGINE_FOLDER).mkdir(parents=True, exist_ok=True)
    for file, source in linked.items():
        link(source, new / ENGINE_FOLDER / file)
    finish(new)
    return publish(new, folder)


def copy_template(template: Path, new: Path) -> None:
    """Copy every file of `template`, symbolic links as the files they stand for, and give each model a version folder."""
    for path in source_files(template):
        target = new / path.relative_to(template)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for config in new.glob("*/config.pbtxt"):
        (config.parent / "1").mkdir(exist_ok=True)  # an ensemble has no code, and Triton wants a version all the same


def link(source: Path, target: Path) -> None:
    """Hard link, or a copy where links are not possible (another file system, a mounted share)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def publish(new: Path, folder: Path) -> Path:
    """Rename `new` to `folder`/repository; what was there is moved away first and removed afterwards."""
    current, old = folder / REPOSITORY, folder / f"{_OLD}{new.name.removeprefix(_TMP)}"
    if current.exists():
        shutil.rmtree(old, ignore_errors=True)
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)
    return current


def leftovers(folder: Path) -> Iterator[Path]:
    """What an interrupted build left in `folder`."""
    if folder.is_dir():
        yield from (p for p in sorted(folder.iterdir()) if p.name.startswith((_TMP, _OLD)))


def repair(folder: Path) -> None:
    """Bring back a repository that was moved away and not yet replaced; remove what interrupted builds left.

    Only for the holder of the build's lock.
    """
    current = folder / REPOSITORY
    for path in leftovers(folder):
        if path.name.startswith(_OLD) and not current.exists():
            path.rename(current)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
