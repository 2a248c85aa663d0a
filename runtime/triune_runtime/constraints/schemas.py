"""JSON schemas as the grammar library keeps them: it reads numbers as doubles, and leaves objects open that say nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from ..options.values import refuse

_EXACT = 2**53  # up to here every whole number is a double
_WIDEST = float(2**63 - 1024)  # the largest double among 64-bit integers, which is what the library counts with
_LONGEST = 2**28  # characters, entries or keys that no answer has: an engine holds at most 2^20 tokens
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("enum", "const", "default", "examples")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_COMBINED = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "not")
_SAID = ("additionalProperties", "unevaluatedProperties", "patternProperties")
Schema = dict[str, Any]


def prepared(name: str, schema: Mapping[str, Any], *, closed: bool = False) -> Schema:
    """A copy of `schema` whose every answer is valid by it.

    Bounds that are no doubles move inwards to the next one, so that an answer may miss some of the values, and never takes
    others. Sizes may be written as 2.0.

    Args:
        closed: objects with properties have no others, unless they say which.

    Raises:
        RequestError: there is a value that cannot be kept; names it.
    """
    return _schema(name, schema, closed=closed)


def _schema(name: str, schema: Mapping[str, Any], *, closed: bool) -> Schema:
    made: Schema = {}
    joined = "properties" in schema  # what its branches say then holds beside it
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, Mapping):
            made[key] = {one: _part(name, part, closed=closed) for one, part in value.items()}
        elif key in _VALUES:
            made[key] = value
            if key in ("enum", "const"):
                _check_values(f"{name}.{key}", value)
        else:
            branch = key in ("anyOf", "oneOf") and not joined
            _check_finite(f"{name}.{key}", value)
            made[key] = _part(name, value, closed=closed and (branch or key not in _COMBINED))
    _move_bounds(name, made)
    _check_sizes(name, made)
    if closed and isinstance(made.get("properties"), Mapping) and not made.keys() & {*_SAID, *_COMBINED}:
        made["additionalProperties"] = False
    return made


def _part(name: str, part: Any, *, closed: bool) -> Any:
    if isinstance(part, Mapping):
        return _schema(name, part, closed=closed)
    return [_part(name, one, closed=closed) for one in part] if isinstance(part, list) else part


def _check_values(name: str, value: Any) -> None:
    """Whole numbers in a value that an answer must have as it is."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _check_values(name, one)
    _check_finite(name, value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT and not _kept(value):
        raise refuse(
            name, value, "whole numbers that 64-bit floating point holds exactly, below 2^63, are served", "unsupported"
        )


def _check_finite(name: str, value: Any) -> None:
    """Python reads NaN, Infinity and 1e999 in JSON, which has none of them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(name, value, "a finite number is expected")


def _kept(value: int) -> bool:
    return abs(value) <= _WIDEST and int(float(value)) == value


def _move_bounds(name: str, schema: Schema) -> None:
    """Bounds beyond the exact numbers become inclusive ones that are doubles, further inside."""
    for key, sign in (("minimum", 1), ("maximum", -1)):
        exclusive = "exclusive" + key.capitalize()
        for bound in (key, exclusive):
            value = schema.get(bound)
            if not _is_number(value) or abs(value) <= _EXACT - 1:
                continue
            other = schema.get(key)
            open_end = bound == exclusive or schema.get(exclusive) is True  # Draft 4 has it beside the bound
            inside = sign * _inside(sign * value, open_end=open_end)
            if sign * inside > _WIDEST:
                raise refuse(f"{name}.{bound}", value, "bounds within 64-bit integers are served", "unsupported")
            for gone in (bound, exclusive) if open_end else (bound,):
                schema.pop(gone, None)
            wins = bound == key or not _is_number(other) or sign * inside > sign * other
            schema[key] = int(inside) if wins else other


def _inside(value: float, *, open_end: bool) -> float:
    """A double close to `value` that is not below it, or with an open end above it, however the library writes it.

    Whole numbers it takes as they are, others it writes with the fewest digits that say which double they are.
    """
    if value < -_WIDEST:
        return -_WIDEST
    if value > _WIDEST:
        return math.inf
    near = float(value)
    while (written := min(int(near), int(Decimal(repr(near))))) < value or (open_end and written <= value):
        near = math.nextafter(near, math.inf)
    return near


def _check_sizes(name: str, schema: Schema) -> None:
    for key in _SIZES:
        value = schema.get(key)
        if not _is_number(value):
            continue
        if isinstance(value, float) and value.is_integer():
            value = schema[key] = int(value)
        if value > _LONGEST:
            if key.startswith("min"):
                raise refuse(f"{name}.{key}", value, f"at most {_LONGEST:,} is served", "unsupported")
            del schema[key]  # no answer is as long


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
