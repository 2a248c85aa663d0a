"""Reads small files of a checkpoint whole: regular files only, and no more of them than such files have. Knows no format."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import BuildError

CONFIG_BYTES = 16 << 20  # more than any config, template or index of its size has
TOKENIZER_BYTES = 64 << 20  # the largest published ones have about 30 MB
# What each character of JSON may come to in memory, in bytes, and how much a file's may: the largest tokenizers' takes 200 MB.
_WEIGHT = {"{": 240, "[": 72, ",": 40, '"': 30}
_MOST_PARSED = 320 << 20
_AGAIN = "fetch the file again"


def exists(path: Path) -> bool:
    """Whether there is something of that name, a link to nothing included: that is damage, not absence."""
    return os.path.lexists(path)


def regular_size(path: Path) -> int:
    """Bytes of the regular file `path`.

    Raises:
        BuildError: it is none, or a link to nothing; pipes and devices may never end.
        FileNotFoundError: there is nothing of that name.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        raise BuildError(
            f"{path} is a link to {path.readlink()}, which does not exist",
            "fetch the model again: the cache that it was linked from was moved or cleaned",
        ) from None
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} cannot be read: {error}", _AGAIN) from error
    if not stat.S_ISREG(found.st_mode):
        raise BuildError(f"{path} is not a regular file", "put the model's own file in its place")
    return found.st_size


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most `most` bytes.

    Raises:
        BuildError: it is too large, no regular file, or no UTF-8.
        FileNotFoundError: there is nothing of that name.
    """
    if (size := regular_size(path)) > most:
        raise BuildError(f"{path} has {size:,} bytes; at most {most:,} are read", _AGAIN)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{path} cannot be read: {error}", _AGAIN) from error


def parse(path: Path, text: str) -> Any:
    """The JSON value in `text`.

    Raises:
        BuildError: it is no JSON, or nested deeper than Python reads.
    """
    try:
        check_parsed(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path} is not valid JSON: {error}", _AGAIN) from error


def check_parsed(text: str) -> None:
    """That the values of a JSON text, of which a few bytes may stand for many, fit into memory.

    Raises:
        ValueError: they may not.
    """
    size = sum(weight * text.count(character) for character, weight in _WEIGHT.items())
    if size > _MOST_PARSED:
        raise ValueError(f"its values may take {size:,} bytes; at most {_MOST_PARSED:,} are read")


def parse_object(path: Path, text: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        BuildError: as `parse`, or it is something else.
    """
    value = parse(path, text)
    if not isinstance(value, dict):
        held = "null" if value is None else f"a {type(value).__name__}"
        raise BuildError(f"{path} holds {held}, not an object", _AGAIN)
    return value
