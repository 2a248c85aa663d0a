"""What a chat and a completion look like on the wire: whole, and as events of a stream. No I/O; text is the server's."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from triune_client import Chunk, ToolCall, ToolCallDelta

from .errors import ApiError
from .logprobs import TextOffsets, chat_logprobs
from .usage import Counts

Json = dict[str, Any]
# OpenAI's finish reasons; any other end of an answer is an error there
_FINISHED = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def finish_reason(chunk: Chunk) -> str | None:
    """OpenAI's name for why the answer ended; None while it has not.

    Raises:
        ApiError: it was ended by someone else, or by the server's deadline.
    """
    if chunk.finish_reason is None:
        return None
    if (reason := _FINISHED.get(chunk.finish_reason)) is not None:
        return reason
    if chunk.finish_reason == "deadline":
        raise ApiError(504, "the answer did not end before its deadline.", kind="server_error", code="timeout")
    raise ApiError(500, f"the answer ended early: {chunk.finish_reason}.", kind="server_error", code=chunk.finish_reason)


@dataclass
class Gathered:
    """A choice of a whole answer, as it comes together."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None

    def take(self, chunk: Chunk) -> None:
        """The next piece."""
        self.texts.append(chunk.text)
        self.thoughts.append(chunk.reasoning)
        self.logprobs += chunk.logprobs
        self.tool_calls += chunk.tool_calls
        self.finish_reason = finish_reason(chunk)


class Shape(ABC):
    """One answer's looks: everything its JSON objects have in common."""

    prefix: str
    object: str
    event_object: str

    def __init__(self, model: str, *, usage: bool, running_usage: bool) -> None:
        """
        Args:
            model: the name the client called the model by.
            usage: a stream ends with token counts.
            running_usage: every event has them.
        """
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._usage, self._running_usage = usage, running_usage
        self._common: Json = {"id": self.id, "created": int(time.time()), "model": model, "system_fingerprint": None}

    def whole(self, choices: list[Gathered], counts: Counts) -> Json:
        """The answer as one object."""
        shaped = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return self._common | {"object": self.object, "choices": shaped, "usage": counts.shape()}

    def events(self, index: int, chunk: Chunk, counts: Counts, *, first: bool) -> Iterator[Json]:
        """The events of a piece of choice `index`.

        Raises:
            ApiError: see `finish_reason`.
        """
        reason = finish_reason(chunk)
        for choice in self._event_choices(index, chunk, reason, first=first):
            yield self._event([choice], counts.shape() if self._running_usage else None)

    def last_events(self, counts: Counts) -> Iterator[Json]:
        """What follows when all choices have ended."""
        if self._usage:
            yield self._event([], counts.shape())

    def _event(self, choices: list[Json], usage: Json | None) -> Json:
        event = self._common | {"object": self.event_object, "choices": choices}
        if self._usage or self._running_usage:
            event["usage"] = usage
        return event

    @abstractmethod
    def _choice(self, index: int, choice: Gathered) -> Json: ...

    @abstractmethod
    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]: ...


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix, object, event_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, *, usage: bool, running_usage: bool, logprobs: int | None) -> None:
        super().__init__(model, usage=usage, running_usage=running_usage)
        self._top = logprobs

    def _choice(self, index: int, choice: Gathered) -> Json:
        content = "".join(choice.texts)
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if choice.tool_calls:
            message |= {"content": content or None, "tool_calls": [call.to_message() for call in choice.tool_calls]}
        if thoughts := "".join(choice.thoughts):
            message["reasoning_content"] = thoughts
        logprobs = None if self._top is None else chat_logprobs(choice.logprobs, self._top)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]:
        if first:
            yield self._delta(index, {"role": "assistant", "content": ""})
        delta: Json = {}
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.text:
            delta["content"] = chunk.text
        if delta or chunk.logprobs:
            logprobs = None if self._top is None else chat_logprobs(chunk.logprobs, self._top)
            yield self._delta(index, delta, logprobs)
        for piece in chunk.tool_call_deltas:  # an event each: clients take the first one's list of calls as it is
            yield self._delta(index, {"tool_calls": [_call_delta(piece)]})
        if reason:
            yield self._delta(index, {}, reason=reason)

    def _delta(self, index: int, delta: Json, logprobs: Json | None = None, reason: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _call_delta(piece: ToolCallDelta) -> Json:
    """A piece of a call; the first one has its name and id, and no arguments yet."""
    if piece.name:
        return {"index": piece.index, "id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}}
    return {"index": piece.index, "function": {"arguments": piece.arguments}}


class CompletionShape(Shape):
    """/v1/completions."""

    prefix, object, event_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, *, usage: bool, running_usage: bool, logprobs: int | None, echoed: list[str]) -> None:
        """
        Args:
            echoed: what each choice begins with: its prompt or nothing.
        """
        super().__init__(model, usage=usage, running_usage=running_usage)
        self._top = logprobs
        self._echoed = echoed
        self._offsets = [TextOffsets(len(text)) for text in echoed]

    def _choice(self, index: int, choice: Gathered) -> Json:
        text = "".join((self._echoed[index], *choice.texts))
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]:
        text = self._echoed[index] + chunk.text if first else chunk.text
        if text or chunk.logprobs or reason:
            yield {"index": index, "text": text, "logprobs": self._logprobs(index, chunk.logprobs), "finish_reason": reason}

    def _logprobs(self, index: int, entries: Any) -> Json | None:
        return None if self._top is None else self._offsets[index].shape(entries, self._top)
