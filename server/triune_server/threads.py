"""What Triton must be told of the engines that it serves: threads for what their processes ask of it, and time to load them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from triune_runtime.manifest import FILE_NAME, EngineManifest, engine_folder
from triune_runtime.targets import find_target

START_S = 120.0  # for most engines, and all around them
_LEAST, _MORE = 64, 48  # at all; and than the sequences that are computed at once


def threads(repository: Path) -> int:
    """Each call of another model has one until it ends, and so has each answer while it is sent.

    `triune_infer` makes such calls. It learns the number by the environment, and makes fewer: were all taken, it could not even
    refuse what comes meanwhile. Triton has 32 unless it is told.
    """
    return max([_LEAST, *(one.limits.max_sequences + _MORE for one in _engines(repository))])


def start_seconds(*repositories: Path) -> float:
    """How long the engines in these may take to be loaded."""
    return max([START_S, *(find_target(one.target).start_s for each in repositories for one in _engines(each))])


def _engines(repository: Path) -> Iterator[EngineManifest]:
    engines = map(engine_folder, map(str, repository.glob("*generate")))
    return (EngineManifest.load(one) for one in engines if (one / FILE_NAME).is_file())
