"""Brings a model from the Hugging Face hub into that library's own cache, file by file. Opens nothing."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import BuildError
from .folder import CONFIG, OPTIONAL, TOKENIZER
from .safetensors_files import INDEX

PATTERNS = (CONFIG, TOKENIZER, *OPTIONAL, INDEX, "model*.safetensors")


def fetch_from_hub(model: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of `model` (`owner/name`, or `owner/name@revision`); shows the library's own progress bars.

    A connection that breaks is taken up again at the byte where it broke; after a run that was ended, the next one fetches
    only the files that are not yet whole in the cache. Without a connection the cache is used if it holds the whole model.

    Args:
        endpoint: the hub's address (default: HF_ENDPOINT, or the public hub).
        cache_dir: default: HF_HUB_CACHE, or the library's usual place.

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
        )
    except Exception as error:  # the HTTP client's own errors come through, and which client that is changes
        raise _explained(model, error) from error
    return Path(folder)


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
