"""Where API keys come from: a file, or the environment. Never the command line, which other users of a machine can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

KEYS_VARIABLE = "TRIUNE_API_KEYS"
KEYS_FILE_VARIABLE = "TRIUNE_API_KEYS_FILE"


def read_keys(environment: Mapping[str, str], file: Path | None = None) -> tuple[str, ...]:
    """The keys of `file`, or of the file or the keys that the environment names; none if it names neither.

    Raises:
        OSError: the file cannot be read.
        ValueError: keys are asked for, but there is none: serving everyone would not be what was meant.
    """
    if file is None and environment.get(KEYS_FILE_VARIABLE):
        file = Path(environment[KEYS_FILE_VARIABLE])
    if file is not None:
        lines = file.read_text("utf-8").splitlines()
        return _some((line for line in lines if not line.lstrip().startswith("#")), str(file))
    if KEYS_VARIABLE in environment:
        return _some(environment[KEYS_VARIABLE].split(","), KEYS_VARIABLE)
    return ()


def _some(candidates: Iterable[str], source: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in candidates if key.strip())
    if not keys:
        raise ValueError(f"{source} holds no API key")
    return keys
