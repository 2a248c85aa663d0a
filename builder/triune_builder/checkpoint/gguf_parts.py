"""Finds the parts of a GGUF file that llama.cpp split (`X-00001-of-00003.gguf`) and reads their headers. Reads no weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BuildError, quoted
from .files import exists
from .gguf_header import Header, read_header

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})")  # of a part, without its suffix
_MOST_PARTS = 1000
_HINT = "fetch all parts of the model again, under the names they are published with"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file and its header."""

    path: Path
    header: Header


def model_name(path: Path) -> str:
    """What a file is called without its suffix and without its number among others."""
    matched = _NAME.fullmatch(path.stem)
    return matched[1] if matched else path.stem


def read_parts(path: Path) -> tuple[Part, ...]:
    """`path`, and where it is the first of several parts, the others, which lie beside it.

    Raises:
        BuildError: a part is missing, damaged, of another model, or `path` is not the first one.
    """
    first = Part(path=path, header=read_header(path))
    count = first.header.metadata.get("split.count", 1)
    if count in (0, 1):
        return (first,)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 < count <= _MOST_PARTS:
        raise BuildError(
            f"{path} is part {_number(first)} of {quoted(count)}; a whole number from 1 to {_MOST_PARTS} is expected", _HINT
        )
    matched = _NAME.fullmatch(path.stem)
    if matched is None or int(matched[3]) != count:
        raise BuildError(
            f"{path} is part {_number(first)} of {count}, and its name does not end in -0000N-of-{count:05d}.gguf",
            "give all parts the names they are published with, or join them with `llama-gguf-split --merge`, not with `cat`",
        )
    paths = [path.with_name(f"{matched[1]}-{i + 1:05d}-of-{count:05d}{path.suffix}") for i in range(count)]
    if first.header.metadata.get("split.no", 0) != 0 or path != paths[0]:
        raise BuildError(f"{path} is part {_number(first)} of {count}", f"name the first part, {paths[0].name}")
    if missing := [other.name for other in paths if not exists(other)]:
        raise BuildError(f"{path.parent} lacks {len(missing)} of {count} parts, such as {missing[0]}", _HINT)
    parts = (first, *(Part(path=other, header=read_header(other)) for other in paths[1:]))
    _check(parts, first.header.metadata)
    return parts


def _check(parts: tuple[Part, ...], metadata: dict[str, Any]) -> None:
    """That the parts are those of one file."""
    seen: set[str] = set()
    for number, part in enumerate(parts):
        own = part.header.metadata
        if (own.get("split.no"), own.get("split.count")) != (number, len(parts)):
            raise BuildError(
                f"{part.path} says that it is part {_number(part)} of {quoted(own.get('split.count'))}, by its name it is part "
                f"{number + 1} of {len(parts)}",
                _HINT,
            )
        names = {tensor.name for tensor in part.header.tensors}
        if twice := names & seen:
            raise BuildError(f"{part.path} has {min(twice)}, which an earlier part has, too", _HINT)
        seen |= names
    said = metadata.get("split.tensors.count", len(seen))
    if said != len(seen):
        raise BuildError(f"{parts[0].path} says that its parts have {quoted(said)} tensors; they have {len(seen)}", _HINT)


def _number(part: Part) -> str:
    number = part.header.metadata.get("split.no", 0)
    return str(number + 1) if isinstance(number, int) else quoted(number)
