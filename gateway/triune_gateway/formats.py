"""What an answer is to look like and which tools it may call: OpenAI's fields, and vLLM's -> options of the client. No I/O.

The server behind checks schemas and tools, and says what is wrong with them; here is only what it could not be sent.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import invalid
from .schemas import Generation

Json = dict[str, Any]
_KINDS = ("json", "json_object", "regex", "choice", "grammar")


def format_options(request: Generation) -> Json:
    """`response_format`, from OpenAI's field or vLLM's.

    Raises:
        ApiError: both are sent, or vLLM's names nothing, two things, or something unknown.
    """
    form, other = request.response_format, request.structured_outputs
    if form is not None:
        _check_json("response_format", form)
    if other is None:
        return {"response_format": form}
    if form is not None:
        raise invalid("response_format and structured_outputs both say what the answer looks like.", "structured_outputs")
    _check_json("structured_outputs", other)
    given = {key: value for key, value in other.items() if value is not None and value is not False}
    if len(given) != 1 or not given.keys() <= set(_KINDS):
        raise invalid(f"structured_outputs must have exactly one of {', '.join(_KINDS)}.", "structured_outputs")
    ((kind, value),) = given.items()
    if kind == "json":
        inner = {"name": "answer", "schema": value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": inner}}
    return {"response_format": {"type": kind} | ({} if kind == "json_object" else {kind: value})}


def tool_options(tools: list[Json] | None, choice: str | Json | None, parallel: bool | None) -> Json:
    """`tools`, and what belongs to them: `tool_choice` and `parallel_tool_calls`.

    Raises:
        ApiError: there is a choice of tools but no tools.
    """
    _check_json("tools", tools)
    _check_json("tool_choice", choice)
    if not tools:
        if choice not in (None, "none"):
            raise invalid("tool_choice is only allowed when tools are specified.", "tool_choice")
        return {}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}


def _check_json(name: str, value: Any) -> None:
    """JSON can carry half a surrogate pair, UTF-8 cannot; and infinities are none."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name} cannot be sent on: {error}.", name) from None
