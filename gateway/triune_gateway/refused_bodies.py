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


_BOUNDS = {"greater_than_equal": ("ge", "greater than or equal to"), "less_than_equal": ("le", "less than or equal to")}


def of_unreadable(cause: BaseException | None) -> ApiError:
    """Why a body could not be read at all.

    Args:
        cause: what reading it raised.
    """
    why = "could not be read as JSON"
    if isinstance(cause, UnicodeDecodeError):
        why = f"is not UTF-8: {cause.reason} at byte {cause.start:,}"
    elif isinstance(cause, RecursionError):
        why = "is nested too deeply to be read"
    elif type(cause) is ValueError:  # the one of json that is not of a class of its own
        why = "has a number of too many digits"
    return invalid(f"The body of the request {why}.")


def of_validation(error: RequestValidationError, content_type: str) -> ApiError:
    """The first thing that the schemas found; of what may be of several kinds, what is wrong with the kind that was sent."""
    found = error.errors()
    first = found[0]
    kind, place = first["type"], first["loc"][1:]
    if kind == "json_invalid":
        return invalid(f"The body of the request is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
    if not place:  # the body itself
        if not _is_json(content_type):
            return ApiError(400, f"The header Content-Type is {content_type!r}; application/json is expected.")
        return invalid("The body of the request must be a JSON object.")
    value = _value_place(place)
    if kind == "extra_forbidden":  # what the client called it may look like a branch
        return _of_field([first])
    of_value = [one for one in found if _value_place(one["loc"][1:])[: len(value)] == value]
    return _of_field(_closest(of_value) if len(of_value) > 1 else of_value)


def _of_field(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What is wrong with a field: several errors are the kinds of value that it may have, and has not."""
    first = errors[0]
    kind, param = first["type"], _path(first["loc"][1:])
    if kind == "extra_forbidden":
        param = _joined([*_value_place(first["loc"][1:-1]), first["loc"][-1]])
        return invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind == "missing":
        return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "too_long":
        most, entries = first["ctx"]["max_length"], len(first["input"])
        return invalid(
            f"Invalid value for '{param}': it has {entries:,} entries; at most {most:,} are taken.", param, "invalid_value"
        )
    if kind in _BOUNDS:  # the schemas' own words have a bound as a float, which beyond 2^53 is another number
        name, words = _BOUNDS[kind]
        said = f"Input should be {words} {first['ctx'][name]}, not {shown(first['input'])}"
        return invalid(f"Invalid value for '{param}': {said}.", param, "invalid_value")
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
    return _joined(_value_place(place))


def _joined(place: Sequence[Any]) -> str:
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("application/") and (kind == "application/json" or kind.endswith("+json"))
