"""A request of /v1/responses as the one of /v1/chat/completions that it is: the same conversation, the same text. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ..calls import Call
from ..endpoints import chat
from ..errors import ApiError, invalid, not_supported
from ..refusals import refuse_fields
from ..thinking import check_effort
from .items import chat_messages
from .schemas import EXTENSIONS, LOGPROBS, UNSERVED, Function, ResponseRequest

Json = dict[str, Any]
_HOSTED = "this server runs no tools; it hands calls of functions to the client"
# what the server calls an input -> the field of the client's, where the names differ
_SENT_AS = {
    "prompt": "input", "messages": "input", "text_input": "input", "max_tokens": "max_output_tokens",
    "response_format": "text.format", "enable_thinking": "reasoning.effort", "logprobs": "top_logprobs",
}  # fmt: skip


def check(request: ResponseRequest) -> None:
    """Check what a request asks for besides its conversation.

    Raises:
        ApiError: it is not served, contradicts itself, or is not Unicode.
    """
    refuse_fields(request, UNSERVED)
    if request.stream_options is not None and not request.stream:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if request.input is None and request.previous_response_id is None:
        raise invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    check_effort("reasoning.effort", request.reasoning.effort if request.reasoning else None)
    for name in ("input", "instructions", "metadata", "tools", "text"):
        value = getattr(request, name)
        try:
            shown = value.model_dump() if name == "text" and value is not None else value
            json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise invalid(f"{name} cannot be sent on: {error}.", name) from None


def top_logprobs(request: ResponseRequest) -> int | None:
    """How many of the best tokens log probabilities are wanted of; None: of none at all."""
    if request.top_logprobs is None and LOGPROBS not in (request.include or ()):
        return None
    return request.top_logprobs or 0


def call_of(request: ResponseRequest, items: Sequence[Json]) -> Call:
    """The call that answers a conversation.

    Args:
        items: all of the conversation, those before this request first.

    Raises:
        ApiError: the request asks for what is not served, or contradicts itself.
    """
    instructed = [{"role": "system", "content": request.instructions}] if request.instructions is not None else []
    messages = [*instructed, *chat_messages(items)]
    if not messages:
        raise invalid("input is empty; it must hold at least one item.", "input")
    tools, choice = _tools(request)
    effort = request.reasoning.effort if request.reasoning else None
    top = top_logprobs(request)
    fields = {
        "model": request.model, "messages": messages, "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature, "top_p": request.top_p, "tools": tools or None, "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls, "reasoning_effort": effort, "response_format": _format(request),
        "logprobs": None if top is None else True, "top_logprobs": top,
        **{name: getattr(request, name) for name in EXTENSIONS},
    }  # fmt: skip
    try:
        (call,) = chat.calls(chat.ChatRequest.model_validate(fields), most=1)
    except ApiError as error:
        raise ApiError(error.status, error.message, kind=error.kind, param=_field(error.param), code=error.code) from None
    sent = {name: _field(name) or name for name in (*call.fields, *_SENT_AS)}
    return replace(call, fields=sent)


def _field(name: str | None) -> str | None:
    renamed = {"max_completion_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"} | _SENT_AS
    return None if name is None else renamed.get(name.partition("[")[0], name)


def _tools(request: ResponseRequest) -> tuple[list[Json], str | Json | None]:
    """The functions and the choice among them, in the shapes of a chat."""
    functions = [_function(place, tool) for place, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if not isinstance(choice, dict):
        return functions, choice if functions or choice not in ("auto", None) else None
    if choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return functions, {"type": "function", "function": {"name": choice["name"]}}
    if choice.get("type") == "allowed_tools" and choice.get("mode") in ("auto", "required"):
        allowed = choice.get("tools")
        names = [one.get("name") for one in allowed if isinstance(one, dict)] if isinstance(allowed, list) else []
        return [one for one in functions if one["function"]["name"] in names], choice["mode"]
    served = "none, auto, required, one function or allowed_tools are served"
    raise not_supported("tool_choice", f"tool_choice is of the type {choice.get('type')!r:.60}; {served}.")


def _function(place: int, tool: Json) -> Json:
    if (kind := tool.get("type")) != "function":
        raise not_supported(f"tools[{place}].type", f"tools[{place}] is of the type {kind!r:.60}: {_HOSTED}.")
    try:
        Function.model_validate({name: value for name, value in tool.items() if value is not None})
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", "tools", place, *one["loc"])} for one in error.errors()]) from None
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _format(request: ResponseRequest) -> Json | None:
    form = request.text.format if request.text else None
    if form is None or form.get("type") != "json_schema":
        return form
    return {
        "type": "json_schema",
        "json_schema": {name: value for name, value in form.items() if name != "type" and value is not None},
    }
