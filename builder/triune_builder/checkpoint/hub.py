"""Brings a model from the Hugging Face hub into that library's own cache, file by file. Opens nothing."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from ..errors import BuildError
from .folder import CONFIG, OPTIONAL, TOKENIZER
from .safetensors_files import INDEX

PATTERNS = (CONFIG, TOKENIZER, *OPTIONAL, INDEX, "model*.safetensors")


def fetch_from_hub(
    model: str,
    *,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
    count: Callable[[int, int | None], None] = lambda done, total: None,
) -> Path:
    """The folder of `model` (`owner/name`, or `owner/name@revision`).

    A connection that breaks is taken up again at the byte where it broke; after a run that was ended, the next one fetches
    only the files that are not yet whole in the cache. Without a connection the cache is used if it holds the whole model.

    Args:
        endpoint: the hub's address (default: HF_ENDPOINT, or the public hub).
        cache_dir: default: HF_HUB_CACHE, or the library's usual place.
        count: told the bytes that are fetched, and how many there are in all as far as is known yet.

    Raises:
        BuildError: no such model or revision, no access to it, no connection, or no such file.
    """
    repository, _, revision = model.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(PATTERNS),
            cache_dir=cache_dir,
            endpoint=endpoint,
            tqdm_class=_telling(count),
        )
    except Exception as error:  # the HTTP client's own errors come through, and which client that is changes
        raise _explained(model, error) from error
    return Path(folder)


def _telling(count: Callable[[int, int | None], None]) -> type[tqdm]:
    """What the library takes for a progress bar: shows nothing, but tells `count` of those that count bytes."""

    class Telling(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # as the library calls it
            super().__init__(*args, **kwargs | {"file": io.StringIO(), "disable": False})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B" and self.n:
                count(int(self.n), int(self.total) if self.total and self.total >= self.n else None)
            return shown

    return Telling


def fetch_headers_from_hub(
    model: str,
    folder: Path,
    *,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> Path:
    """`folder` with all of `model` but the numbers: its safetensors files have their headers and are hollow behind them.

    Args:
        endpoint, cache_dir: as in `fetch_from_hub`.
        progress: told in words what is being done.

    Raises:
        BuildError: as `fetch_from_hub`.
    """
    repository, _, revision = model.partition("@")
    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(repository, revision=revision or None)
        small = snapshot_download(
            repository, revision=info.sha, allow_patterns=list(PATTERNS[:-1]), cache_dir=cache_dir, endpoint=endpoint
        )
        names = [s.rfilename for s in info.siblings or () if fnmatchcase(s.rfilename, PATTERNS[-1])]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(small, folder)
        for number, name in enumerate(names, start=1):
            progress(f"reading the header of {name}, {number} of {len(names)}")
            tensors = api.parse_safetensors_file_metadata(repository, name, revision=info.sha).tensors
            entries = {n: {"dtype": t.dtype, "shape": t.shape, "data_offsets": t.data_offsets} for n, t in tensors.items()}
            _write_hollow(folder / name, entries)
    except Exception as error:  # as above
        raise _explained(model, error) from error
    return folder


def cached_config(model: str, *, cache_dir: Path | None = None) -> Path:
    """The config.json of `model` in the hub library's cache; fetches nothing.

    Raises:
        BuildError: it is not there.
    """
    repository, _, revision = model.partition("@")
    found = try_to_load_from_cache(repository, CONFIG, revision=revision or None, cache_dir=cache_dir)
    if not isinstance(found, str):
        raise BuildError(
            f"the hub's cache on this machine has no config.json of {model}",
            f"fetch it: `hf download {repository} config.json`; or give a folder or a config.json",
        )
    return Path(found)


def _write_hollow(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """A safetensors file of these tensors with nothing but a hole where their numbers should be."""
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + max((entry["data_offsets"][1] for entry in entries.values()), default=0))


def _explained(model: str, error: Exception) -> BuildError:
    """One sentence and a remedy for what the library raised; the narrowest kinds first."""
    said = next((line for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    if isinstance(error, GatedRepoError):
        return BuildError(
            f"the hub does not let you read {model}: {said}",
            "ask for access on the model's page, then log in with `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, RepositoryNotFoundError):
        return BuildError(
            f"the hub has no model {model} that you may read: {said}",
            "check the spelling; if the model is private, log in with `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, RevisionNotFoundError):
        return BuildError(f"the hub has {model.partition('@')[0]}, but not this revision: {model}", "leave @revision out")
    if isinstance(error, HFValidationError):
        return BuildError(
            f"{model!r} is not a name that the hub can have: {said}", "expected owner/name or owner/name@revision"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return BuildError(
            f"the hub cannot be reached, and the cache does not hold the whole of {model}: {said}",
            "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, and run this again; or give a folder or a .gguf file",
        )
    return BuildError(
        f"the download of {model} from the hub broke off: {type(error).__name__}: {said}",
        "run this again: files that are whole are kept",
    )
