"""What a MODEL argument means, and the name of the folder that its builds lie in. Opens nothing and imports no tool."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import BuildError
from .named_models import FOLDERS, MODELS, folder_path

DEFAULT_MODEL = "smollm2-135m"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_PATH_BYTES, _NAME_BYTES = 4096, 255  # the longest that Linux takes
_READABLE, _HASH = 64, 8  # characters of a folder's name
_GGUF = ".gguf"


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """One model. Two spellings of the same model have equal `kind` and `identity`, two models never."""

    kind: Literal["name", "path", "hub"]
    identity: str  # the name, the path without links and dots, or the hub id with its revision
    path: Path | None  # where it lies, as it was spelled; None: to be fetched

    @property
    def readable(self) -> str:
        """What it is called, in characters that are safe everywhere; other models may be called the same."""
        last = self.identity if self.kind != "path" else self.identity.rpartition("/")[2]
        if last.lower().endswith(_GGUF):
            last = last[: -len(_GGUF)]
        return re.sub(r"[^A-Za-z0-9._-]+", "--", last)[:_READABLE].strip(".-") or "model"

    @property
    def folder_name(self) -> str:
        """A name of its own for each model: of a known name itself, of the others with a hash of what they are."""
        if self.kind == "name":
            return self.identity
        known = hashlib.sha256(f"{self.kind}:{self.identity}".encode()).hexdigest()
        return f"{self.readable}-{known[:_HASH]}"


def names() -> tuple[str, ...]:
    """Every known name."""
    return (*MODELS, *FOLDERS)


def meaning_of(model: str) -> Meaning:
    """What `model` is: a known name, else a path, else a hub id `owner/name[@revision]`.

    A path that exists is never taken for a hub id, and a known name never for a path: a folder of that name is `./NAME`.

    Raises:
        BuildError: it cannot be any of these.
    """
    _check(model)
    if model in names():
        return Meaning(kind="name", identity=model, path=folder_path(model) if model in FOLDERS else None)
    path = _expanded(model)
    if _HUB_ID.fullmatch(model) and not model.lower().endswith(_GGUF) and not model.startswith(".") and not _exists(path):
        return Meaning(kind="hub", identity=model, path=None)
    return Meaning(kind="path", identity=os.path.realpath(path), path=path)


def unknown_model(model: str, meaning: Meaning) -> BuildError:
    """The error for a path that is no checkpoint, with what may have been meant."""
    path = meaning.path or Path(model)
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.gguf"))
        why = f"{model} is a folder without config.json" + (f"; it has {', '.join(inside[:5])}" if inside else "")
    elif _exists(path):
        why = f"{model} is a file that does not end in .gguf"
    elif path.is_symlink():
        why = f"{model} is a link to {path.readlink()}, which does not exist"
    elif "/" in model or model.startswith((".", "~")) or path.suffix == _GGUF:
        why = f"{model} does not exist"
    else:
        why = f"no model {model!r}"
    close = difflib.get_close_matches(model, [*names(), *_beside(model, path)], n=3)
    return BuildError(
        f"{why}; a model is one of: a name ({', '.join(sorted(names()))}), the path of a .gguf file, "
        "a folder with config.json, or a hub id owner/name",
        f"did you mean {' or '.join(close)}?" if close else f"try {DEFAULT_MODEL}",
    )


def _beside(model: str, path: Path) -> list[str]:
    """Checkpoints in the folder where `path` would lie, spelled as `model` is."""
    folder, start = path.parent, model.rstrip("/").rpartition("/")
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix == _GGUF or (p / "config.json").is_file())
    except OSError:
        return []
    return ["".join((*start[:2], p.name)) for p in found[:200]]


def _check(model: str) -> None:
    example = f"name a model, e.g. {DEFAULT_MODEL}, or a folder"
    if not model.strip():
        raise BuildError("the model's name is empty", example)
    try:
        parts = [len(part.encode()) for part in model.split("/")]
    except UnicodeEncodeError:
        raise BuildError(f"{model!a} is not UTF-8", "rename the file or folder") from None
    if any(unicodedata.category(character) == "Cc" for character in model):
        raise BuildError(f"{ascii(model)[:80]} has control characters", "rename the file or folder")
    if max(parts) > _NAME_BYTES or sum(parts) + len(parts) > _PATH_BYTES:
        raise BuildError(f"{model[:40]!r}... is too long for the name of a file", example)


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # `~somebody` who has no home
        return Path(model)


def _exists(path: Path) -> bool:
    """Whether anything is there; a path that cannot be looked at is not."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True
