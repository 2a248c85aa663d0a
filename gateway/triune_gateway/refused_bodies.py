"""What is wrong with a body, in OpenAI's words: the first of the things that the schemas found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from .errors import ApiError, invalid

_LONGEST_VALUE = 80


def of_validation(error: RequestValidationError, content_type: str) -> ApiError:
    """The first thing that the schemas found."""
    first = error.errors()[0]
    kind, place = first["type"], first["loc"][1:]
    if kind == "json_invalid":
        return invalid(f"The body of the request is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
    if not place:  # the body itself
        if not content_type.startswith("application/json"):
            return ApiError(400, f"The header Content-Type is {content_type!r}; application/json is expected.")
        return invalid("The body of the request must be a JSON object.")
    param = _path(place)
    if kind == "extra_forbidden":
        return invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind == "missing":
        return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return invalid(f"Invalid value for '{param}': {first['msg']}, not {_short(first['input'])}.", param, code)


def _path(place: Sequence[Any]) -> str:
    """`messages[0].content`; without the names that pydantic gives the branches of a union."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in ("str", "constrained-str") and "[" not in part:
            path += f".{part}" if path else part
    return path


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
