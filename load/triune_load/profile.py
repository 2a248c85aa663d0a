"""A profile: options, a mixture of requests and thresholds in one TOML file."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LoadError

_TABLES = ("run", "part", "thresholds")


@dataclass(frozen=True)
class Profile:
    """What a profile says."""

    options: dict[str, Any]  # by the name that argparse has for them
    parts: tuple[dict[str, Any], ...]
    thresholds: dict[str, Any]


def read_profile(path: Path, known: Mapping[str, argparse.Action]) -> Profile:
    """The profile in a file; `known` are the options there are. Paths in it are relative to it.

    Raises:
        LoadError: it cannot be read, or says what nobody knows.
    """
    raw = read_toml(path)
    if unknown := set(raw) - set(_TABLES):
        raise LoadError(f"{path} has {', '.join(sorted(unknown))}; expected the tables {', '.join(_TABLES)}")
    options = {}
    for name, value in raw.get("run", {}).items():
        dest = name.replace("-", "_")
        if dest not in known or dest in ("profile", "help"):
            raise LoadError(f"{path} has the option {name!r}, which there is not", "see `triune-load --help`")
        options[dest] = _value(known[dest], value, path)
    parts = raw.get("part", [])
    if not isinstance(parts, list):
        raise LoadError(f"{path} has part as {type(parts).__name__}; expected [[part]]")
    for part in parts:
        if "prompts" in part:
            part["prompts"] = path.parent / part["prompts"]
    return Profile(options, tuple(parts), raw.get("thresholds", {}))


def _value(action: argparse.Action, value: Any, path: Path) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return value if isinstance(action.default, list) else ",".join(str(v) for v in value)
    if action.type is Path:
        return path.parent / str(value)
    return value if action.type in (int, float) else str(value)


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML in a file.

    Raises:
        LoadError: it is none, or cannot be read.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} is not TOML: {error}") from None
