"""The named models that lie in a checkout of the project, as folders. Opens none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

PROJECT = Path(__file__).parents[2]  # in a checkout


@dataclass(frozen=True, kw_only=True)
class ProjectFolder:
    """A checkpoint folder of the project. `hint` says how to come by it where it is missing."""

    path: str
    hint: str


FOLDERS = {
    "r1-nano": ProjectFolder(
        path="models/r1-nano/checkpoint", hint="run in a checkout of the project, which holds the weights"
    ),
    "r1-nano-fp8": ProjectFolder(
        path="models/r1-nano/checkpoint-fp8",
        hint="`make engine MODEL=r1-nano-fp8` makes it; or: .venv/bin/python -m r1_nano.fp8",
    ),
}


def path_of(model: str) -> Path:
    """Where the files of `model` lie, if it is a path or a named folder of the project."""
    return PROJECT / FOLDERS[model].path if model in FOLDERS else Path(model).expanduser()


def project_folder(model: str) -> Path:
    """The folder of a name in `FOLDERS`.

    Raises:
        BuildError: it is not there.
    """
    folder = path_of(model)
    if not (folder / "config.json").is_file():
        raise BuildError(f"the model {model} should lie in {folder}, which has no config.json", FOLDERS[model].hint)
    return folder
