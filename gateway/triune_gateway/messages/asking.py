"""A request of /v1/messages as the one of /v1/chat/completions that it is: the same conversation, the same text. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ..calls import Call
from ..endpoints import chat
from ..errors import ApiError, invalid, not_supported
from ..refusals import refuse_fields
from ..thinking import check_effort
from .schemas import UNSERVED, MessagesRequest, Tool

Json = dict[str, Any]
_TEXT_ONLY = "this server reads and writes text only"
# what the server calls an input, or a chat a field -> the field of the client's, where the names differ
_SENT_AS = {
    "prompt": "messages", "text_input": "messages", "max_completion_tokens": "max_tokens", "stop": "stop_sequences",
    "response_format": "output_config.format", "enable_thinking": "thinking", "thinking_budget": "thinking.budget_tokens",
    "reasoning_effort": "output_config.effort",
}  # fmt: skip
# Anthropic's clients must send max_tokens, and send it and a budget to every model: those of larger ones do no harm.
_WISHES = frozenset({"enable_thinking", "thinking_budget", "max_tokens"})


def call_of(request: MessagesRequest) -> Call:
    """The call that answers a conversation.

    Raises:
        RequestValidationError, ApiError: the request asks for what is not served, contradicts itself, or is not Unicode.
    """
    refuse_fields(request, UNSERVED)
    for name in ("system", "messages", "tools", "output_config"):
        try:
            json.dumps(request.model_dump(include={name}), ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise invalid(f"{name} cannot be sent on: {error}.", name) from None
    system = [{"role": "system", "content": _text("system", request.system)}] if request.system else []
    turns = (_turns(f"messages[{place}]", turn.role, turn.content) for place, turn in enumerate(request.messages))
    form = request.output_config.format if request.output_config else None
    if form is not None and form.get("type") != "json_schema":
        raise not_supported("output_config.format", "output_config.format is no json_schema, the only type that is served.")
    fields = {
        "model": request.model, "messages": [*system, *(message for turn in turns for message in turn)],
        "max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k,
        "stop": request.stop_sequences,
        "response_format": None if form is None else {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": form.get("schema"), "strict": True}},
        **_tools(request), **_thinking(request),
    }  # fmt: skip
    try:
        (call,) = chat.calls(chat.ChatRequest.model_validate(fields), most=1)
    except ApiError as error:
        raise ApiError(error.status, error.message, kind=error.kind, param=_field(error.param), code=error.code) from None
    fields_sent = {name: _field(name) or name for name in (*call.fields, *_SENT_AS)}
    return replace(call, fields=fields_sent, wishes=_WISHES)


def _field(name: str | None) -> str | None:
    return None if name is None else _SENT_AS.get(name, name)


def _thinking(request: MessagesRequest) -> Json:
    asked = request.thinking
    effort = request.output_config.effort if request.output_config else None
    check_effort("output_config.effort", effort)
    if asked is None:
        return {"reasoning_effort": effort}
    if (asked.budget_tokens is None) == (asked.type == "enabled"):
        said = "missing" if asked.budget_tokens is None else f"only allowed when thinking.type is enabled, not {asked.type}"
        raise invalid(f"thinking.budget_tokens is {said}.", "thinking.budget_tokens")
    if asked.type == "disabled":
        return {"reasoning_effort": "none"}
    if asked.type == "enabled":  # tells exactly what an effort only suggests
        return {"reasoning_effort": "high", "thinking_budget": asked.budget_tokens}
    return {"reasoning_effort": effort or "high"}


def _tools(request: MessagesRequest) -> Json:
    """The functions and the choice among them, in the shapes of a chat."""
    functions = [_function(place, tool) for place, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if choice is None:
        return {"tools": functions or None}
    if (choice.type == "tool") != (choice.name is not None):
        raise invalid("tool_choice.name is for the type tool, which needs one.", "tool_choice.name")
    named = {"type": "function", "function": {"name": choice.name}}
    said = {"any": "required", "tool": named}.get(choice.type, choice.type)
    return {
        "tools": functions or None,
        "tool_choice": said if functions or said != "auto" else None,
        "parallel_tool_calls": None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use,
    }


def _function(place: int, sent: Json) -> Json:
    if sent.get("type") not in (None, "custom"):
        kind = sent["type"]
        raise not_supported(f"tools[{place}].type", f"tools[{place}] is of the type {kind!r:.60}: this server runs no tools.")
    try:
        tool = Tool.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", "tools", place, *one["loc"])} for one in error.errors()]) from None
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _turns(where: str, role: str, content: str | Sequence[Json]) -> Iterator[Json]:
    """The messages of a chat that a turn is: results of tools are messages of their own, before what else the user says."""
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    texts: list[str] = []
    turn: Json = {"role": role}
    for place, block in enumerate(content):
        here, kind = f"{where}.content[{place}]", block.get("type")
        if kind == "tool_result" and role == "user":
            called = _string(here, block, "tool_use_id")
            yield {"role": "tool", "tool_call_id": called, "content": _text(f"{here}.content", block.get("content") or "")}
        elif kind == "tool_use" and role == "assistant":
            call_id, name = _string(here, block, "id"), _string(here, block, "name")
            function = {"name": name, "arguments": json.dumps(block.get("input") or {}, ensure_ascii=False)}
            turn.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})
        elif kind == "thinking" and role == "assistant":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + _string(here, block, "thinking")
        else:
            texts.append(_text(here, [block]))
    if texts or len(turn) > 1:
        yield turn | {"content": "".join(texts)}


def _text(where: str, content: str | Sequence[Any]) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for place, block in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise not_supported(where, f"{where}: block {place} is not text: {_TEXT_ONLY}.")
        texts.append(block["text"])
    return "".join(texts)


def _string(where: str, block: Json, name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise invalid(f"{where}.{name} is {value!r:.60}; a string is expected.", f"{where}.{name}")
    return value
