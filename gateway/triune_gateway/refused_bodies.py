"""What is wrong with a body, in OpenAI's words: the first of the things that the schemas found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from .errors import ApiError, invalid, shown

_TYPES = {
    "string": "a string", "int": "a whole number", "float": "a number", "bool": "true or false", "list": "a list",
    "dict": "an object", "model_attributes": "an object", "model": "an object",
}  # fmt: skip


def of_validation(error: RequestValidationError, content_type: str) -> ApiError:
    """The first thing that the schemas found; of what may be of several kinds, what is wrong with the kind that was sent."""
    found = error.errors()
    first = found[0]
    kind, place = first["type"], first["loc"][1:]
    if kind == "json_invalid":
        return invalid(f"The body of the request is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
    if not place:  # the body itself
        if not content_type.startswith("application/json"):
            return ApiError(400, f"The header Content-Type is {content_type!r}; application/json is expected.")
        return invalid("The body of the request must be a JSON object.")
    value = _value_place(place)
    of_value = [one for one in found if _value_place(one["loc"][1:])[: len(value)] == value]
    return _of_field(_closest(of_value) if len(of_value) > 1 else of_value)


def _of_field(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What is wrong with a field: several errors are the kinds of value that it may have, and has not."""
    first = errors[0]
    kind, param = first["type"], _path(first["loc"][1:])
    if kind == "extra_forbidden":
        return invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind == "missing":
        return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "too_long":
        most, entries = first["ctx"]["max_length"], len(first["input"])
        return invalid(
            f"Invalid value for '{param}': it has {entries:,} entries; at most {most:,} are taken.", param, "invalid_value"
        )
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    types = [_TYPES.get(one["type"].removesuffix("_type")) for one in errors if one["type"].endswith("_type")]
    named = " or ".join(dict.fromkeys(name for name in types if name))
    expected = f"{named} is expected" if named else first["msg"]
    return invalid(f"Invalid value for '{param}': {expected}, not {shown(first['input'])}.", param, code)


def _closest(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the errors of a field those that are deepest in what was sent: other kinds failed at once, by their type."""
    deepest = max(len(_value_place(one["loc"][1:])) for one in errors)
    deep = [one for one in errors if len(_value_place(one["loc"][1:])) == deepest]
    of_value = [one for one in deep if not one["type"].endswith("_type")]
    chosen = of_value or deep
    place = _value_place(chosen[0]["loc"][1:])
    same = [one for one in chosen if _value_place(one["loc"][1:]) == place]
    return same if all(one["type"].endswith("_type") for one in same) else same[:1]


def _value_place(place: Sequence[Any]) -> list[Any]:
    """Without the names that pydantic gives the branches of a union."""
    return [part for number, part in enumerate(place) if isinstance(part, int) or number == 0 or not _is_branch(part)]


def _is_branch(part: str) -> bool:
    return part in ("str", "constrained-str", "bool", "int", "float") or "[" in part


def _path(place: Sequence[Any]) -> str:
    """`messages[0].content`."""
    path = ""
    for part in _value_place(place):
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
