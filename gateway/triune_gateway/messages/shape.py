"""What an answer of /v1/messages looks like: whole, and as events of a stream. No I/O; text is the server's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from triune_client import Chunk

from ..errors import ApiError
from ..parts import Part, Parts, Step, new_id
from ..shapes import AnswerShape, finish_reason
from ..usage import Counts
from .errors import anthropic_error

Json = dict[str, Any]
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageShape(AnswerShape):
    """The answer's looks."""

    named_events = True

    def __init__(self, model: str, *, show_thinking: bool, stops: bool) -> None:
        """
        Args:
            model: the name the client called the model by.
            show_thinking: whether the thinking is told.
            stops: whether the request has stop sequences.
        """
        super().__init__(model)
        self._message: Json = {
            "id": new_id("msg"), "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
            "stop_sequence": None,
        }  # fmt: skip
        self._shows, self._stops = show_thinking, stops
        self._parts = Parts()

    def take(self, index: int, chunk: Chunk) -> None:
        for _ in self._steps(chunk):
            pass

    def whole(self, counts: Counts) -> Json:
        content = [_block(part, part.text if part.kind != "thinking" or self._shows else "") for part in self._parts.all]
        return self._message | {"content": content, "usage": _usage(counts)}

    def events(self, index: int, chunk: Chunk, counts: Counts, *, first: bool) -> Iterator[Json]:
        if first:
            yield {"type": "message_start", "message": self._message | {"usage": _usage(counts)}}
            yield {"type": "ping"}
        yield from self._steps(chunk)

    def last_events(self, counts: Counts) -> Iterator[Json]:
        delta = {name: self._message[name] for name in ("stop_reason", "stop_sequence")}
        yield {"type": "message_delta", "delta": delta, "usage": _usage(counts)}
        yield {"type": "message_stop"}

    def failed_events(self, error: ApiError, counts: Counts) -> Iterator[Json]:
        yield anthropic_error(error)

    def _steps(self, chunk: Chunk) -> Iterator[Json]:
        reason = finish_reason(chunk)
        if reason is not None:
            stopped = reason == "stop" and self._stops and chunk.stop_reason is not None
            self._message["stop_reason"] = "stop_sequence" if stopped else _REASONS[reason]
            self._message["stop_sequence"] = chunk.stop_reason if stopped else None
        for step in self._parts.take(chunk, reason):
            yield from self._event(step)

    def _event(self, step: Step) -> Iterator[Json]:
        part = step.part
        if step.what == "begin":
            yield {"type": "content_block_start", "index": part.place, "content_block": _block(part, "")}
        elif step.what == "end":
            if part.kind == "thinking":
                yield {
                    "type": "content_block_delta",
                    "index": part.place,
                    "delta": {"type": "signature_delta", "signature": _SIGNED},
                }
            yield {"type": "content_block_stop", "index": part.place}
        elif part.kind != "thinking" or self._shows:
            yield {"type": "content_block_delta", "index": part.place, "delta": _delta(part, step.piece)}


_SIGNED = "triune"  # clients want one; nothing is proved by it


def _delta(part: Part, piece: str) -> Json:
    if part.kind == "call":
        return {"type": "input_json_delta", "partial_json": piece}
    return {"type": f"{part.kind}_delta", part.kind: piece}


def _block(part: Part, text: str) -> Json:
    """A part as a block of content; of a call whose arguments are no object, none are told."""
    if part.kind == "text":
        return {"type": "text", "text": text}
    if part.kind == "thinking":
        return {"type": "thinking", "thinking": text, "signature": _SIGNED if part.pieces else ""}
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = {}
    return {
        "type": "tool_use",
        "id": part.call_id,
        "name": part.name,
        "input": arguments if isinstance(arguments, dict) else {},
    }


def _usage(counts: Counts) -> Json:
    return {
        "input_tokens": counts.prompt - counts.cached,  # there, the three together are the prompt
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion, "output_tokens_details": {"thinking_tokens": counts.reasoning},
    }  # fmt: skip
