"""What an answer is to look like and which tools it may call: OpenAI's fields, and vLLM's -> options of the client. No I/O.

The server behind checks schemas and tools, and says what is wrong with them; here is only what it could not be sent.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import invalid, shown
from .schemas import Generation

Json = dict[str, Any]
_KINDS = ("json", "json_object", "regex", "choice", "grammar")
_CLOSED = "disable_additional_properties"
_SETTINGS = ("disable_fallback", "disable_any_whitespace", "whitespace_pattern", "structural_tag", _CLOSED)
_GUIDED = ("json", "regex", "choice", "grammar")
_CHOICES = ("none", "auto", "required")


def format_options(request: Generation) -> Json:
    """`response_format`, from OpenAI's field or one of vLLM's.

    Raises:
        ApiError: several are sent, or vLLM's names nothing, two things, or something unknown.
    """
    guided = {f"guided_{kind}": value for kind in _GUIDED if (value := getattr(request, f"guided_{kind}")) is not None}
    sent = {"response_format": request.response_format, "structured_outputs": request.structured_outputs, **guided}
    given = {name: value for name, value in sent.items() if value is not None}
    for name, value in given.items():
        check_json(name, value)
    if len(given) > 1:
        raise invalid(f"{' and '.join(given)} both say what the answer looks like; send one of them.", list(given)[-1])
    if not given:
        return {}
    ((name, value),) = given.items()
    if name == "response_format":
        return {"response_format": value}
    if name in guided:
        return {"response_format": _format(name.removeprefix("guided_"), value)}
    return {"response_format": _of_vllm(value)}


def _of_vllm(value: Json) -> Json:
    known = ", ".join(_KINDS)
    given = {key: entry for key, entry in value.items() if entry is not None and entry is not False}
    if unknown := next((key for key in given if key not in (*_KINDS, *_SETTINGS)), None):
        raise invalid(f"structured_outputs.{unknown} is not known; exactly one of {known} is expected.", "structured_outputs")
    closed = given.pop(_CLOSED, False)
    given.pop("disable_fallback", None)  # there is nothing to fall back to
    if len(given) != 1 or not given.keys() <= set(_KINDS):
        named = f"has {' and '.join(given)}" if given else "has none"
        raise invalid(f"structured_outputs {named}; exactly one of {known} is expected.", "structured_outputs")
    ((kind, entry),) = given.items()
    return _format(kind, entry) | ({_CLOSED: closed} if closed else {})


def _format(kind: str, value: Any) -> Json:
    if kind == "json":
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value, "strict": True}}
    return {"type": kind} | ({} if kind == "json_object" else {kind: value})


def tool_options(tools: list[Json] | None, choice: str | Json | None, parallel: bool | None) -> Json:
    """`tools`, and what belongs to them: `tool_choice` and `parallel_tool_calls`.

    Raises:
        ApiError: there is a choice of tools but no tools, or it is none that is known.
    """
    check_json("tools", tools)
    check_json("tool_choice", choice)
    if isinstance(choice, str) and choice not in _CHOICES:
        expected = ", ".join(f'"{one}"' for one in _CHOICES)
        raise invalid(
            f"tool_choice is {shown(choice)}; {expected} or an object that names a function is expected.", "tool_choice"
        )
    if not tools:
        if choice not in (None, "none"):
            raise invalid("tool_choice is only allowed when tools are specified.", "tool_choice")
        return {}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}


def check_json(name: str, value: Any) -> None:
    """JSON can carry half a surrogate pair, UTF-8 cannot; and infinities are none.

    Raises:
        ApiError: there is one.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name} cannot be sent on: {error}.", name) from None
