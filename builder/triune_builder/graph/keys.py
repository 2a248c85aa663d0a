"""What a value of config.json may be, and what a missing or null one means. Knows no architecture and no key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from ..errors import BuildError, quoted

_MOST = 2**31 - 1
_SHOWN = 60  # characters of a value that an error quotes


class Refused(Enum):
    """In the place of what a missing or null key means: it means nothing, and the build stops."""

    REFUSED = "refused"


REFUSED = Refused.REFUSED


class Kind(NamedTuple):
    """What a value must be, in words and as a test."""

    expected: str
    holds: Callable[[Any], bool]
    is_choice: bool = False  # of values that are built, among others that a model may have


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key that an architecture reads."""

    kind: Kind
    missing: Any = REFUSED  # what it means where config.json has no such key
    null: Any = REFUSED  # what null means


def count(least: int = 1, most: int = _MOST) -> Kind:
    """A whole number; true and 2.0 are none."""
    return Kind(f"a whole number from {least:,} to {most:,}", lambda value: is_whole(value) and least <= value <= most)


def number(*, above: float | None = None, least: float | None = None) -> Kind:
    """A finite number; true and "1" are none."""
    limit = "" if above is None else f" above {above:g}"
    limit += "" if least is None else f" of at least {least:g}"

    def holds(value: Any) -> bool:
        return is_number(value) and (above is None or value > above) and (least is None or value >= least)

    return Kind(f"a number{limit}", holds)


def one_of(*values: Any) -> Kind:
    """One of `values`, by value and type."""
    words = " or ".join(str(v).lower() if isinstance(v, bool) else repr(v) for v in values)
    return Kind(words, lambda value: any(type(value) is type(v) and value == v for v in values), True)


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
LAYER_KINDS = Kind("a list of names, or null",
                   lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value))  # fmt: skip


def is_whole(value: Any) -> bool:
    """Whether it is an integer, which true is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float holds."""
    return (is_whole(value) and abs(value) < 1e300) or (isinstance(value, float) and math.isfinite(value))


def shown(value: Any) -> str:
    """A value as an error quotes it: on one line, and not without end."""
    if is_whole(value) and value.bit_length() > 128:
        return "an integer of more than 38 digits"
    return quoted(value, _SHOWN)


def read_key(config: Mapping[str, Any], name: str, key: Key) -> tuple[Any, str | None]:
    """What `name` means in `config`, or what is wrong with its value in a few words."""
    value = config.get(name)
    meant = key.null if name in config else key.missing
    if value is None and meant is not REFUSED:
        return meant, None
    if value is None and name not in config:
        return None, f"{name} is missing; expected {key.kind.expected}"
    if not key.kind.holds(value):
        return None, f"{name} is {'null' if value is None else shown(value)}; expected {key.kind.expected}"
    return value, None


def read_keys(config: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    """What each of `keys` means in `config`.

    Raises:
        BuildError: names every key whose value is not what it must be.
    """
    read = {name: read_key(config, name, key) for name, key in keys.items()}
    problems = [problem for _, problem in read.values() if problem]
    if problems:
        raise BuildError(
            f"config.json of a {config.get('model_type')}: {'; '.join(problems)}",
            "correct config.json, or fetch the model's own again",
        )
    return {name: value for name, (value, _) in read.items()}
