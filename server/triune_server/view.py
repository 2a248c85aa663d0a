"""What Triton mounts: the models that are served, each engine's under names of its own, in a folder that Triton watches.

A model comes in by renames of what was put together beside, and goes out the same way, so that Triton never sees half of one
and what the others serve is not touched. Files are links: a repository that is built anew does not change what runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ServerError

ENGINE_FOLDER = Path("generate") / "1"
FIRST = "triune"  # the ensemble of the first engine, whose models have their plain names
_TOKENIZER = "tokenize"
_LONGEST_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STEP = re.compile(r'(model_name: )"(\w+)"')
_ENSEMBLE = 'platform: "ensemble"'


@dataclass(frozen=True)
class Served:
    """An engine that is served."""

    repository: Path
    ensemble: str  # the name that KServe's clients say
    tokenizer: str = _TOKENIZER  # the model that turns prompts into tokens


class View:
    """The folder of a run that Triton mounts, and the list of what is in it."""

    def __init__(self, run_folder: Path) -> None:
        self.models = run_folder.absolute() / "models"
        self.list = run_folder.absolute() / "models.json"
        self._beside = run_folder.absolute() / "models.new"
        self._plain: set[str] = {""}  # the folders of the first one's models; and what cannot be told

    def begin(self, repositories: Mapping[str, Path]) -> None:
        """Start anew with these, by name; the first one's models get their plain names.

        Raises:
            ServerError: a name that cannot be one of Triton's models.
        """
        self.end()
        self.models.mkdir(parents=True)
        for name, repository in repositories.items():
            first = not self.served()
            self.announce(name, self._put(name, repository, plain=first))
            if first:
                self._plain |= {folder.name for folder in self.models.iterdir()}

    def end(self) -> None:
        """Remove it."""
        self.list.unlink(missing_ok=True)
        for folder in (self.models, self._beside):
            shutil.rmtree(folder, ignore_errors=True)

    def served(self) -> dict[str, Served]:
        """What is served, by name; the first is the one with the plain names."""
        try:
            raw = json.loads(self.list.read_text("utf-8"))
            return {name: Served(Path(one["repository"]), one["ensemble"], one["tokenizer"]) for name, one in raw.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}

    def is_served(self, model: str) -> bool:
        """Whether one of Triton's models, by its folder's name, is of an engine that is served."""
        name = model.rpartition("__")[0] or model.removesuffix("_infer")
        return model in self._plain or name in self.served()

    def add(self, name: str, repository: Path) -> Served:
        """Put one more in; `announce` it when it is ready.

        Raises:
            ServerError: the name is taken, or cannot be one of Triton's models.
        """
        if name in self.served():
            raise ServerError(f"{name} is being served already", f"choose another NAME, or `make remove NAME={name}` first")
        return self._put(name, repository, plain=False)

    def announce(self, name: str, served: Served) -> None:
        """Have clients find it."""
        self._write({**self.served(), name: served})

    def withdraw(self, name: str) -> list[str]:
        """Take the ensembles of one out, so that nobody can ask for it any more; its steps still answer what was asked.

        Returns:
            Triton's names of what was taken out.

        Raises:
            ServerError: it is not served, or is the first.
        """
        served = self.served()
        if name not in served:
            raise ServerError(f"{name} is not being served; served: {', '.join(served)}", "name one of these")
        if served[name].ensemble == FIRST:
            raise ServerError(
                f"{name} is what the server was started with, and has its plain names", "serve another: `make up SWITCH=1`"
            )
        self._write({other: one for other, one in served.items() if other != name})
        ensembles = [folder.name for folder in self.folders(name) if _is_ensemble(folder)]
        self._take_out(name, _is_ensemble)
        return ensembles

    def drop(self, name: str) -> None:
        """Take out what `withdraw` left of one."""
        self._take_out(name, lambda folder: True)

    def folders(self, name: str) -> list[Path]:
        """The folders of one that is not the first."""
        own = {name, f"{name}_infer"}
        return [f for f in sorted(self.models.iterdir()) if f.name in own or f.name.rpartition("__")[0] == name]

    def _put(self, name: str, repository: Path, *, plain: bool) -> Served:
        if not _NAME.fullmatch(name) or "__" in name or len(name) > _LONGEST_NAME:
            raise ServerError(f"{name!r} cannot be the name of a model", "letters, digits, -, . and single _, e.g. my-model")
        beside = self._beside / name
        shutil.rmtree(beside, ignore_errors=True)
        names = {
            f.name: f.name if plain else _name(f.name, name) for f in repository.iterdir() if (f / "config.pbtxt").is_file()
        }
        for part, own in names.items():
            _copy(repository / part, beside / own, names)
        if taken := [own for own in names.values() if (self.models / own).exists()]:
            raise ServerError(f"there are models called {', '.join(taken)} already", "choose another name")
        for folder in sorted(beside.iterdir(), key=_is_ensemble):  # their steps first
            folder.rename(self.models / folder.name)
        shutil.rmtree(beside)
        if plain:
            return Served(repository.absolute(), FIRST)
        return Served(repository.absolute(), name, names.get(_TOKENIZER, _TOKENIZER))

    def _take_out(self, name: str, which: Callable[[Path], bool]) -> None:
        self._beside.mkdir(exist_ok=True)
        for folder in self.folders(name):
            if which(folder):
                folder.rename(self._beside / folder.name)
        shutil.rmtree(self._beside)

    def _write(self, served: Mapping[str, Served]) -> None:
        beside = self.list.with_suffix(".json.new")
        beside.write_text(json.dumps({name: asdict(one) for name, one in served.items()}, indent=2, default=str), "utf-8")
        beside.replace(self.list)


def name_for(model: str) -> str:
    """A name for Triton's models, of the name that an engine has."""
    cut = re.sub(r"[^A-Za-z0-9.-]+|_+", "-", model.rstrip("/").rpartition("/")[2].removesuffix(".gguf")).strip("-.")
    return cut[:_LONGEST_NAME] or "model"


def _name(part: str, name: str) -> str:
    return {FIRST: name, f"{FIRST}_infer": f"{name}_infer"}.get(part, f"{name}__{part}")


def _is_ensemble(folder: Path) -> bool:
    return _ENSEMBLE in (folder / "config.pbtxt").read_text("utf-8")


def _copy(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """One of Triton's models under another name, with links to its files."""
    (target / "1").mkdir(parents=True)
    config = (source / "config.pbtxt").read_text("utf-8")
    (target / "config.pbtxt").write_text(_STEP.sub(lambda found: f'{found[1]}"{names[found[2]]}"', config), "utf-8")
    # Not a folder: Python, which ignores its environment there, would write into it, and Triton take that for a change.
    (target / "1" / "__pycache__").touch()
    for file in (source / "1").rglob("*") if (source / "1").is_dir() else ():
        place = target / "1" / file.relative_to(source / "1")
        if file.is_file() and "__pycache__" not in file.parts:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:  # another file system
                place.symlink_to(file.resolve())
