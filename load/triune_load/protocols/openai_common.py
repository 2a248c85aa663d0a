"""What OpenAI's chat and completions share: the sampling fields, usage, events with choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, Garbled, error_text, to_object, whole_number

DONE = "[DONE]"


def common_fields(dialect: Dialect, request: Request) -> dict[str, Any]:
    """The fields of a request that both have."""
    fields: dict[str, Any] = {
        "model": dialect.model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "ignore_eos": True if request.ignore_eos else None,
    }
    if request.stream:
        options = {"include_usage": True} | ({"continuous_usage_stats": True} if dialect.running_usage else {})
        fields |= {"stream": True, "stream_options": options}
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields | dict(dialect.extra)


def decode_event(data: str, fill: Callable[[Event, Mapping[str, Any]], None]) -> Event:
    """The event in a stream; `fill` takes what the first choice brings.

    Raises:
        Garbled: it is none.
    """
    if data == DONE:
        return Event(done=True)
    found = to_object(data)
    if (error := error_text(found)) is not None:
        return Event(error=error)
    choices = found.get("choices")
    if not isinstance(choices, list):
        raise Garbled("json", f"an event has no list of choices: {data[:120]!r}")
    event = Event(identity=found.get("id"))
    usage = found.get("usage")
    if choices:
        fill(event, choices[0])
        event.finish = choices[0].get("finish_reason")
        if isinstance(usage, dict):
            event.total = whole_number(usage.get("completion_tokens"), "usage.completion_tokens")
    elif isinstance(usage, dict):
        take_usage(event, usage)
    return event


def decode_whole(data: str, fill: Callable[[Event, Mapping[str, Any]], None]) -> Event:
    """A whole answer.

    Raises:
        Garbled: it is none.
    """
    found = to_object(data)
    if (error := error_text(found)) is not None:
        return Event(error=error)
    choices = found.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise Garbled("json", f"an answer does not have one choice: {data[:120]!r}")
    event = Event(identity=found.get("id"), finish=choices[0].get("finish_reason"), done=True)
    fill(event, choices[0])
    if isinstance(usage := found.get("usage"), dict):
        take_usage(event, usage)
    return event


def take_usage(event: Event, usage: Mapping[str, Any]) -> None:
    """Puts the counts of a whole answer into its event.

    Raises:
        Garbled: one is no count.
    """
    event.input_tokens = whole_number(usage.get("prompt_tokens"), "usage.prompt_tokens")
    event.output_tokens = whole_number(usage.get("completion_tokens"), "usage.completion_tokens")
    event.total_tokens = whole_number(usage.get("total_tokens"), "usage.total_tokens")
