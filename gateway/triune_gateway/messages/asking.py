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
from ..errors import ApiError, invalid, not_supported, shown
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
    conversation = [message for turn in turns for message in turn]
    if not conversation:
        raise invalid("messages holds no content; at least one turn with a block is expected.", "messages")
    form = request.output_config.format if request.output_config else None
    if form is not None and form.get("type") != "json_schema":
        raise not_supported("output_config.format", "output_config.format is no json_schema, the only type that is served.")
    fields = {
        "model": request.model, "messages": [*system, *conversation],
        "max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k,
        "stop": request.stop_sequences, "cache_salt": request.cache_salt,
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
            yield {"role": "tool", "tool_call_id": called, "content": _result(here, block.get("content"))}
        elif kind == "tool_use" and role == "assistant":
            call_id, name = _string(here, block, "id"), _string(here, block, "name")
            given = {} if block.get("input") is None else block["input"]
            if not isinstance(given, dict):
                raise invalid(f"{here}.input is {shown(given)}; an object is expected.", f"{here}.input")
            function = {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}
            turn.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})
        elif kind == "thinking" and role == "assistant":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + _string(here, block, "thinking")
        else:
            texts.append(_block(here, block, f" in a message of the {role}"))
    if texts or len(turn) > 1:
        yield turn | {"content": "".join(texts)}


def _text(where: str, content: str | Sequence[Any]) -> str:
    if isinstance(content, str):
        return content
    return "".join(_block(f"{where}[{place}]", block) for place, block in enumerate(content))


def _result(where: str, content: Any) -> str:
    """The content of a result; absent: the tool had nothing to say."""
    if not isinstance(content, str | list | None):
        raise invalid(f"{where}.content is {shown(content)}; a string or a list of blocks is expected.", f"{where}.content")
    return _text(f"{where}.content", content or "")


def _block(where: str, block: Any, place: str = "") -> str:
    """The text of a block. `place`: where it was found, for the error."""
    if not isinstance(block, dict):
        raise invalid(f"{where} is {shown(block)}; a block is expected.", where)
    if block.get("type") != "text":
        kind = shown(block.get("type"))
        raise not_supported(where, f"{where} is of the type {kind}, which is not served{place}: {_TEXT_ONLY}.")
    return _string(where, block, "text")


def _string(where: str, block: Json, name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise invalid(f"{where}.{name} is {shown(value)}; a string is expected.", f"{where}.{name}")
    return value
