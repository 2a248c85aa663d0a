"""How many threads Triton has for what each model's process asks of it."""

from __future__ import annotations

from pathlib import Path

from triune_runtime.manifest import FILE_NAME, EngineManifest, engine_folder

_LEAST, _MORE = 64, 48  # at all; and than the sequences that are computed at once


def threads(repository: Path) -> int:
    """Each call of another model has one until it ends, and so has each answer while it is sent.

    `triune_infer` makes such calls. It learns the number by the environment, and makes fewer: were all taken, it could not even
    refuse what comes meanwhile. Triton has 32 unless it is told.
    """
    engines = map(engine_folder, map(str, repository.glob("*generate")))
    found = (EngineManifest.load(one).limits.max_sequences for one in engines if (one / FILE_NAME).is_file())
    return max([_LEAST, *(most + _MORE for most in found)])
