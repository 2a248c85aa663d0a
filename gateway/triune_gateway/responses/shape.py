"""What an answer of /v1/responses looks like: whole, and as events of a stream. No I/O; text is the server's.

Both are made by the same steps: the response of the last event is the whole answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from triune_client import Chunk

from ..errors import ApiError
from ..logprobs import chat_logprobs
from ..parts import Part, Parts, Step, new_id
from ..shapes import AnswerShape, finish_reason
from ..usage import Counts
from .items import carried
from .schemas import ENCRYPTED, ResponseRequest

Json = dict[str, Any]
_PREFIXES = {"thinking": "rs", "text": "msg", "call": "fc"}


def response_of(request: ResponseRequest, *, store: bool) -> Json:
    """The response as it is before anything has come."""
    reasoning = request.reasoning
    text = request.text
    return {
        "id": new_id("resp"), "object": "response", "created_at": int(time.time()), "status": "in_progress",
        "background": False, "completed_at": None, "error": None, "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens, "max_tool_calls": request.max_tool_calls, "model": request.model,
        "output": [], "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id, "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": _summary(request)},
        "safety_identifier": request.safety_identifier, "service_tier": "default", "store": store,
        "temperature": request.temperature,
        "text": {"format": (text.format if text else None) or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": request.tool_choice or "auto", "tools": [_tool(tool) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0, "top_p": request.top_p, "truncation": "disabled", "usage": None,
        "user": request.user, "metadata": request.metadata or {},
    }  # fmt: skip


def _tool(tool: Json) -> Json:
    return {"description": None, "parameters": None, "strict": None, **tool}


def _summary(request: ResponseRequest) -> str | None:
    reasoning = request.reasoning
    return (reasoning.summary or reasoning.generate_summary) if reasoning else None


class ResponseShape(AnswerShape):
    """The answer's looks."""

    named_events = True

    def __init__(self, request: ResponseRequest, *, store: bool, top: int | None, keep: Callable[[Json], None]) -> None:
        """
        Args:
            store: whether the answer is to be kept.
            top: how many of the best tokens log probabilities are wanted of; None: of none at all.
            keep: is given the whole answer before the client gets the last of it.
        """
        super().__init__(request.model)
        self._response = response_of(request, store=store)
        self._summarized = _summary(request) is not None
        self._carried = ENCRYPTED in (request.include or ())
        self._top, self._keep = top, keep
        self._parts, self._reason = Parts(), ""
        self._sequence = 0

    def take(self, index: int, chunk: Chunk) -> None:
        for _ in self._steps(chunk):
            pass

    def whole(self, counts: Counts) -> Json:
        self._end(counts)
        return self._response

    def events(self, index: int, chunk: Chunk, counts: Counts, *, first: bool) -> Iterator[Json]:
        if first:
            yield self._event("response.created", {"response": self._response | {"output": []}})
            yield self._event("response.in_progress", {"response": self._response | {"output": []}})
        yield from self._steps(chunk)

    def last_events(self, counts: Counts) -> Iterator[Json]:
        self._end(counts)
        yield self._event(f"response.{self._response['status']}", {"response": self._response})

    def failed_events(self, error: ApiError, counts: Counts) -> Iterator[Json]:
        code = "rate_limit_exceeded" if error.kind == "rate_limit_error" else "server_error"
        failed = {"status": "failed", "error": {"code": code, "message": error.message}, "usage": _usage(counts)}
        yield self._event("response.failed", {"response": self._response | failed})

    def _end(self, counts: Counts) -> None:
        cut = self._reason == "length"
        self._response |= {
            "status": "incomplete" if cut else "completed", "completed_at": None if cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "usage": _usage(counts),
        }  # fmt: skip
        self._keep(self._response)

    def _steps(self, chunk: Chunk) -> Iterator[Json]:
        reason = finish_reason(chunk)
        self._reason = reason or ""
        for step in self._parts.take(chunk, reason):
            yield from {"begin": self._begin, "piece": self._piece, "end": self._close}[step.what](step)

    def _begin(self, step: Step) -> Iterator[Json]:
        part = step.part
        item = self._item(part, "in_progress") | {"id": new_id(_PREFIXES[part.kind])}
        self._response["output"].append(item)
        yield self._event("response.output_item.added", {"output_index": part.place, "item": item})
        if part.kind != "call":
            yield self._content(part, "added", self._inner(part, ""))

    def _piece(self, step: Step) -> Iterator[Json]:
        more = {"logprobs": self._logprobs(step.part.untold)} if step.part.kind == "text" else {}
        yield self._of(step.part, f"{self._name(step.part)}.delta", {"delta": step.piece} | more)

    def _close(self, step: Step) -> Iterator[Json]:
        part = step.part
        text = part.text
        item = self._item(part, "completed" if part.whole else "incomplete")
        item["id"] = self._id(part)
        if part.kind == "call":
            item["arguments"] = text
            yield self._of(part, f"{self._name(part)}.done", {"name": part.name, "arguments": text})
        else:
            more = {"logprobs": self._logprobs(part.logprobs)} if part.kind == "text" else {}
            yield self._of(part, f"{self._name(part)}.done", {"text": text} | more)
            inner = self._inner(part, text)
            item["summary" if "summary_text" in inner["type"] else "content"] = [inner]
            yield self._content(part, "done", inner)
        if part.kind == "thinking" and self._carried:
            item["encrypted_content"] = carried(text)
        self._response["output"][part.place] = item
        yield self._event("response.output_item.done", {"output_index": part.place, "item": item})

    def _item(self, part: Part, status: str) -> Json:
        """The item of a part without what it holds."""
        if part.kind == "text":
            return {"id": "", "type": "message", "status": status, "role": "assistant", "content": []}
        if part.kind == "thinking":
            return {"id": "", "type": "reasoning", "status": status, "summary": []}
        called = {"call_id": part.call_id, "name": part.name, "arguments": ""}
        return {"id": "", "type": "function_call", "status": status, **called}

    def _inner(self, part: Part, text: str) -> Json:
        """The one part that a message or a reasoning item has."""
        if part.kind == "thinking":
            return {"type": "summary_text" if self._summarized else "reasoning_text", "text": text}
        found: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs(part.logprobs)}
        return found

    def _content(self, part: Part, what: str, inner: Json) -> Json:
        name = "reasoning_summary_part" if inner["type"] == "summary_text" else "content_part"
        return self._of(part, f"response.{name}.{what}", {"part": inner})

    def _name(self, part: Part) -> str:
        """How the events of its pieces begin."""
        if part.kind == "text":
            return "response.output_text"
        if part.kind == "call":
            return "response.function_call_arguments"
        return "response.reasoning_summary_text" if self._summarized else "response.reasoning_text"

    def _of(self, part: Part, name: str, fields: Json) -> Json:
        """An event about what an item holds."""
        place: Json = {"item_id": self._id(part), "output_index": part.place}
        if part.kind != "call":
            place["summary_index" if part.kind == "thinking" and self._summarized else "content_index"] = 0
        return self._event(name, place | fields)

    def _id(self, part: Part) -> str:
        name: str = self._response["output"][part.place]["id"]
        return name

    def _logprobs(self, entries: list[Any]) -> list[Json]:
        if self._top is None:
            return []
        content: list[Json] = chat_logprobs(entries, self._top)["content"]
        return content

    def _event(self, name: str, fields: Json) -> Json:
        event = {"type": name, "sequence_number": self._sequence} | fields
        self._sequence += 1
        return event


def _usage(counts: Counts) -> Json:
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }
