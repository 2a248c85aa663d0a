"""Where API keys come from: a file, or the environment. Never the command line, which other users of a machine can read.

`KEY # NAME` says whose key it is: the tenant that its requests are counted under. Several keys may have one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

KEYS_VARIABLE = "TRIUNE_API_KEYS"
KEYS_FILE_VARIABLE = "TRIUNE_API_KEYS_FILE"
UNNAMED = "unnamed"  # the tenant of keys that have no name
_NAMED = re.compile(r"(.*\S)\s+#\s*([\w.-]{1,64})")


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


def split_name(key: str) -> tuple[str, str]:
    """A key as it is sent, and the tenant it belongs to."""
    found = _NAMED.fullmatch(key)
    return (found[1], found[2]) if found else (key, UNNAMED)


def _some(candidates: Iterable[str], source: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in candidates if key.strip())
    if not keys:
        raise ValueError(f"{source} holds no API key")
    return keys
