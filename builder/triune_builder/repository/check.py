"""Is this folder a model repository that Triton can load and the runtime can run? Answers without either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from triune_runtime.errors import ManifestError
from triune_runtime.manifest import FILE_NAME, EngineManifest

from ..errors import BuildError
from ..fingerprint import source_files
from .assemble import ENGINE_FOLDER
from .config_text import Message, parse

Files = Mapping[str, Mapping[str, Any]]  # path in the repository -> {"bytes": ..., "sha256": ...}


def check(repository: Path, *, files: Files, sha256: Callable[[Path], str], ignored: frozenset[str]) -> EngineManifest:
    """Check the repository and return its manifest.

    Args:
        files: what must lie in it.
        sha256: hash of a file's contents.
        ignored: paths in the repository that `files` need not name (the report names itself nowhere).

    Raises:
        BuildError: names the first thing that is wrong.
    """
    try:
        manifest = EngineManifest.load(repository / ENGINE_FOLDER)
    except ManifestError as error:
        raise _broken(str(error)) from error
    for name in (manifest.engine, manifest.tokenizer):
        if not (repository / ENGINE_FOLDER / name).is_file():
            raise _broken(f"{FILE_NAME} names {name}, which is not in {repository / ENGINE_FOLDER}")
    check_files(repository, files=files, sha256=sha256, ignored=ignored)
    check_models(repository)
    return manifest


def check_files(repository: Path, *, files: Files, sha256: Callable[[Path], str], ignored: frozenset[str]) -> None:
    """Every file of `files` is there with its size and hash, and nothing else is."""
    found = {p.relative_to(repository).as_posix() for p in source_files(repository)}
    if missing := sorted(set(files) - found):
        raise _broken(f"{repository} has no {', '.join(missing[:5])}")
    if spare := sorted(found - set(files) - ignored):
        raise _broken(f"{repository} has files that no build put there: {', '.join(spare[:5])}")
    for name, entry in files.items():
        path = repository / name
        if path.is_symlink():
            raise _broken(f"{path} is a symbolic link, which a mounted folder may not resolve")
        if path.stat().st_size != entry["bytes"]:
            raise _broken(f"{path} has {path.stat().st_size:,} bytes; it was built with {entry['bytes']:,}")
        if sha256(path) != entry["sha256"]:
            raise _broken(f"{path} is not what was built: its sha256 differs")


def check_models(repository: Path) -> None:
    """Every folder is a model with a version, and ensembles name steps and tensors that exist."""
    folders = [p for p in sorted(repository.iterdir()) if p.is_dir()]
    configs: dict[str, Message] = {}
    for folder in folders:
        path = folder / "config.pbtxt"
        if not path.is_file():
            raise _broken(f"{folder} has no config.pbtxt; Triton takes every folder for a model")
        config = parse(path.read_text("utf-8"), str(path))
        name = _text(config, "name") or folder.name
        if name != folder.name:
            raise _broken(f"{path} says name {name!r}, its folder is {folder.name!r}")
        if not any(p.is_dir() and p.name.isdigit() for p in folder.iterdir()):
            raise _broken(f"{folder} has no version folder, e.g. 1/")
        if _text(config, "backend") == "python" and not (folder / "1" / "model.py").is_file():
            raise _broken(f"{folder} is of the Python backend and has no 1/model.py")
        configs[name] = config
    for name, config in configs.items():
        for scheduling in config.get("ensemble_scheduling", []):
            _check_ensemble(name, config, scheduling, configs)


def _check_ensemble(name: str, config: Message, scheduling: Message, configs: Mapping[str, Message]) -> None:
    """Steps exist, maps name the steps' tensors, every tensor that is read is an input or some step's output."""
    known = _names(config, "input")
    steps = scheduling.get("step", [])
    if not steps:
        raise _broken(f"ensemble {name} has no steps")
    for step in steps:
        model = _text(step, "model_name")
        if model not in configs:
            raise _broken(f"ensemble {name} has the step {model!r}; the repository holds {', '.join(sorted(configs))}")
        for kind in ("input", "output"):
            tensors = _names(configs[model], kind)
            for entry in step.get(f"{kind}_map", []):
                if _text(entry, "key") not in tensors:
                    raise _broken(f"ensemble {name} maps {kind} {_text(entry, 'key')!r}, which {model} does not have")
        mapped = {_text(entry, "key") for entry in step.get("input_map", [])}
        needed = {_text(i, "name") for i in configs[model].get("input", []) if _text(i, "optional") != "true"}
        if unmapped := sorted(needed - mapped):
            raise _broken(f"ensemble {name} gives {model} no {', '.join(unmapped)}")
        known |= {_text(entry, "value") for entry in step.get("output_map", [])}
    for step in steps:
        read = {_text(entry, "value") for entry in step.get("input_map", [])}
        if unknown := sorted(read - known):
            raise _broken(f"ensemble {name}: nothing makes {', '.join(unknown)}, which {_text(step, 'model_name')} reads")
    if unmade := sorted(_names(config, "output") - known):
        raise _broken(f"ensemble {name} promises {', '.join(unmade)}, which no step makes")


def _names(config: Message, kind: str) -> set[str]:
    return {_text(tensor, "name") for tensor in config.get(kind, [])}


def _text(message: Message, field: str) -> str:
    values = message.get(field, [])
    return str(values[-1]) if values else ""


def _broken(what: str) -> BuildError:
    return BuildError(f"the model repository is not right: {what}", "build again; with --force, everything anew")
