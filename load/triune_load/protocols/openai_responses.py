"""OpenAI's responses: events with a type and a sequence number, items of output instead of choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.answer import CallPiece, Event
from ..core.request import Request
from .adapter import Dialect, Garbled, error_text, to_body, to_object, whole_number, whole_text

_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesAdapter:
    """See `adapter.HttpAdapter`."""

    stops_with_mark = True  # the event that has the whole response

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: Request) -> tuple[str, bytes]:
        fields: dict[str, Any] = {
            "model": self._dialect.model, "input": list(request.messages), "max_output_tokens": request.max_tokens,
            "temperature": request.temperature, "store": False,
        }  # fmt: skip
        if request.stream:
            fields["stream"] = True
        if request.schema is not None:
            fields["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": request.schema, "strict": True}}
        if request.tools:
            fields |= {"tools": [{"type": "function", **tool["function"]} for tool in request.tools]}
            fields["tool_choice"] = request.tool_choice
        return "/v1/responses", to_body(fields | dict(self._dialect.extra))

    def decode(self, data: str) -> Event:
        if data == "[DONE]":  # some servers add it
            return Event()
        found = to_object(data)
        kind = found.get("type")
        if not isinstance(kind, str):
            raise Garbled("json", f"an event has no type: {data[:120]!r}")
        event = Event(index=whole_number(found.get("sequence_number"), "sequence_number"))
        if kind == "error":
            event.error = str(found.get("message") or error_text(found) or "the stream ended with an error")
        elif kind == "response.output_text.delta":
            event.text = whole_text(found.get("delta"), "delta")
        elif kind in _REASONING:
            event.reasoning = whole_text(found.get("delta"), "delta")
        elif kind == "response.output_item.added" and (item := found.get("item") or {}).get("type") == "function_call":
            event.calls = (CallPiece(int(found.get("output_index", 0)), whole_text(item.get("name"), "name")),)
        elif kind == "response.function_call_arguments.delta":
            piece = whole_text(found.get("delta"), "delta")
            event.calls = (CallPiece(int(found.get("output_index", 0)), arguments=piece),)
        elif kind == "response.created":
            event.identity = (found.get("response") or {}).get("id")
        elif kind in _ENDS:
            _take_end(event, found.get("response") or {})
            event.done = True
        return event

    def decode_whole(self, data: str) -> Event:
        found = to_object(data)
        if (error := error_text(found)) is not None:
            return Event(error=error)
        event = Event(done=True)
        calls = []
        for place, item in enumerate(found.get("output") or []):
            if item.get("type") == "message":
                event.text += "".join(whole_text(c.get("text"), "text") for c in item.get("content") or [])
            elif item.get("type") == "reasoning":
                event.reasoning += "".join(whole_text(c.get("text"), "text") for c in item.get("content") or [])
            elif item.get("type") == "function_call":
                calls.append(
                    CallPiece(place, whole_text(item.get("name"), "name"), whole_text(item.get("arguments"), "arguments"))
                )
        event.calls = tuple(calls)
        _take_end(event, found)
        return event


def _take_end(event: Event, response: Mapping[str, Any]) -> None:
    """What the whole response says of itself."""
    event.identity = response.get("id")
    status = response.get("status")
    if status == "failed":
        event.error = error_text(response) or "the response failed"
    elif status == "incomplete":
        reason = str((response.get("incomplete_details") or {}).get("reason"))
        event.finish = _REASONS.get(reason, reason)
    elif status == "completed":
        called = any(item.get("type") == "function_call" for item in response.get("output") or [])
        event.finish = "tool_calls" if called else "stop"
    if isinstance(usage := response.get("usage"), dict):
        event.input_tokens = whole_number(usage.get("input_tokens"), "usage.input_tokens")
        event.output_tokens = whole_number(usage.get("output_tokens"), "usage.output_tokens")
        event.total_tokens = whole_number(usage.get("total_tokens"), "usage.total_tokens")
