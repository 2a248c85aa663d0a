"""OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.answer import CallPiece, Event
from ..core.request import Request
from .adapter import Dialect, Garbled, to_body, whole_text
from .openai_common import common_fields, decode_event, decode_whole


class ChatAdapter:
    """See `adapter.HttpAdapter`."""

    stops_with_mark = True

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: Request) -> tuple[str, bytes]:
        fields = common_fields(self._dialect, request) | {"messages": list(request.messages)}
        if request.tools:
            fields |= {"tools": list(request.tools), "tool_choice": request.tool_choice}
        return "/v1/chat/completions", to_body(fields)

    def decode(self, data: str) -> Event:
        return decode_event(data, lambda event, choice: _fill(event, choice.get("delta")))

    def decode_whole(self, data: str) -> Event:
        return decode_whole(data, lambda event, choice: _fill(event, choice.get("message")))


def _fill(event: Event, said: Any) -> None:
    if said is None:
        return
    if not isinstance(said, dict):
        raise Garbled("json", f"a choice says {said!r:.80}; expected an object")
    event.text = whole_text(said.get("content"), "content")
    event.reasoning = whole_text(said.get("reasoning_content") or said.get("reasoning"), "reasoning_content")
    if calls := said.get("tool_calls"):
        event.calls = tuple(_call(call, place) for place, call in enumerate(calls))


def _call(call: Mapping[str, Any], place: int) -> CallPiece:
    function = call.get("function") or {}
    return CallPiece(
        int(call.get("index", place)),
        whole_text(function.get("name"), "name of a tool call"),
        whole_text(function.get("arguments"), "arguments of a tool call"),
    )
