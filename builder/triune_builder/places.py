"""Where builds lie: the one place that knows. Imports no tool."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest

from .errors import BuildError
from .fingerprint import write_atomically
from .naming import meaning_of
from .repository.assemble import ENGINE_FOLDER, REPOSITORY
from .targets import TARGETS, find_target

_SHOWN = 5  # models that an error lists
_MODEL = "model.json"  # beside a repository: what it was built from


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A published repository."""

    model: str  # to be given as the model again: a name, an absolute path or a hub id
    target: str
    precision: str
    max_length: int
    max_sequences: int
    repository: Path


def folder_of(model: str, target: str, build_dir: Path) -> Path:
    """Where the results of builds of that model for that target lie, whatever else was chosen.

    Every spelling of a path gives the same folder, and two models never do.

    Raises:
        BuildError: no such target, or what cannot be a model.
    """
    return build_dir / meaning_of(model).folder_name / find_target(target).name


def repository_of(model: str, target: str, build_dir: Path) -> Path:
    """The published repository in there, whether it exists or not.

    Raises:
        BuildError: no such target, or what cannot be a model.
    """
    return folder_of(model, target, build_dir) / REPOSITORY


def note_model(model: str, target: str, build_dir: Path) -> None:
    """Write down, beside its repository, which model's builds these are: a hash in a name cannot be read back."""
    meaning = meaning_of(model)
    path = folder_of(model, target, build_dir) / _MODEL
    write_atomically(path, json.dumps({"kind": meaning.kind, "model": meaning.identity}, ensure_ascii=False) + "\n")


def built(build_dir: Path) -> tuple[BuiltModel, ...]:
    """Every published repository under `build_dir`, by model and target; what cannot be read is left out."""
    found = []
    for folder in sorted(build_dir.iterdir()) if build_dir.is_dir() else ():
        for target in TARGETS:
            repository = folder / target / REPOSITORY
            try:
                manifest = EngineManifest.load(repository / ENGINE_FOLDER)
            except (ManifestError, OSError):
                continue
            found.append(
                BuiltModel(
                    model=_noted(folder, target), target=target, precision=manifest.precision,
                    max_length=manifest.limits.max_length, max_sequences=manifest.limits.max_sequences, repository=repository,
                )
            )  # fmt: skip
    return tuple(found)


def nothing_built(model: str, target: str, build_dir: Path) -> BuildError:
    """The error for a repository that is not there; names what is built, and how to build."""
    there = ", ".join(f"{one.model} for {one.target}" for one in built(build_dir)[:_SHOWN])
    return BuildError(
        f"no engine of {model} for {target} is built in {build_dir}; " + (f"built: {there}" if there else "nothing is"),
        f"build it: `make engine MODEL={shlex.quote(model)} TARGET={target}`",
    )


def _noted(folder: Path, target: str) -> str:
    try:
        return str(json.loads((folder / target / _MODEL).read_text("utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name  # of a build before there were such notes, or a name
