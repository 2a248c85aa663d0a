"""What generated text looks like on the wire: whole, and as events of a stream. No I/O; text is the server's."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from triune_client import Chunk, ToolCall

from .errors import ApiError, interrupted
from .schemas import StreamOptions
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
    if chunk.finish_reason == "cancelled":  # not by its client, who would not be here: the server behind is stopping
        raise interrupted("the server ended the answer before it was whole; send the request again.")
    raise ApiError(500, f"the answer ended early: {chunk.finish_reason}.", kind="server_error", code=chunk.finish_reason)


@dataclass
class Gathered:
    """A choice of a whole answer, as it comes together."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: list[Any] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None

    def take(self, chunk: Chunk) -> None:
        """The next piece."""
        self.texts.append(chunk.text)
        self.thoughts.append(chunk.reasoning)
        self.logprobs += chunk.logprobs
        self.prompt_logprobs += chunk.prompt_logprobs
        self.tool_calls += chunk.tool_calls
        self.finish_reason = finish_reason(chunk)


class AnswerShape(ABC):
    """One answer's looks, whole or as events. Its pieces are taken, or made into events; not both."""

    named_events = False  # whether an event is named after its type, as in protocols that do not end in [DONE]

    def __init__(self, model: str) -> None:
        """
        Args:
            model: the name the client called the model by.
        """
        self.model = model

    @abstractmethod
    def take(self, index: int, chunk: Chunk) -> None:
        """The next piece of choice `index` of a whole answer.

        Raises:
            ApiError: see `finish_reason`.
        """

    @abstractmethod
    def whole(self, counts: Counts) -> Json:
        """The answer as one object, when all pieces have been taken."""

    @abstractmethod
    def events(self, index: int, chunk: Chunk, counts: Counts, *, first: bool) -> Iterator[Json]:
        """The events of a piece of choice `index`.

        Raises:
            ApiError: see `finish_reason`.
        """

    @abstractmethod
    def last_events(self, counts: Counts) -> Iterator[Json]:
        """What follows when all choices have ended."""

    def failed_events(self, error: ApiError, counts: Counts) -> Iterator[Json]:
        """What ends a stream that has begun and cannot go on."""
        yield error.body


class Shape(AnswerShape):
    """The looks of an answer that is made of choices: everything its JSON objects have in common."""

    prefix: str
    object: str
    event_object: str

    def __init__(self, model: str, options: StreamOptions | None, request_id: str | None = None) -> None:
        """
        Args:
            model: the name the client called the model by.
            options: say whether a stream ends with token counts, and whether every event has them.
            request_id: the end of the answer's id, if the client chose one.
        """
        super().__init__(model)
        self._gathered: defaultdict[int, Gathered] = defaultdict(Gathered)
        self.id = f"{self.prefix}-{request_id or uuid.uuid4().hex}"
        self._running_usage = bool(options and options.continuous_usage_stats)
        self._usage = self._running_usage or bool(options and options.include_usage)
        self._common: Json = {"id": self.id, "created": int(time.time()), "model": model, "system_fingerprint": None}

    def take(self, index: int, chunk: Chunk) -> None:
        self._gathered[index].take(chunk)

    def whole(self, counts: Counts) -> Json:
        shaped = [self._choice(index, choice) for index, choice in sorted(self._gathered.items())]
        beside = self._beside(self._gathered[0]) if self._gathered else {}
        return self._common | {"object": self.object, "choices": shaped, "usage": counts.shape()} | beside

    def _beside(self, first: Gathered) -> Json:
        """What a whole answer has besides its choices, of which `first` is the first."""
        return {}

    def events(self, index: int, chunk: Chunk, counts: Counts, *, first: bool) -> Iterator[Json]:
        reason = finish_reason(chunk)
        for choice in self._event_choices(index, chunk, reason, first=first):
            yield self._event([choice], counts.shape() if self._running_usage else None)

    def last_events(self, counts: Counts) -> Iterator[Json]:
        if self._usage:
            yield self._event([], counts.shape())

    def _event(self, choices: list[Json], usage: Json | None) -> Json:
        event = self._common | {"object": self.event_object, "choices": choices}
        if self._usage:
            event["usage"] = usage
        return event

    @abstractmethod
    def _choice(self, index: int, choice: Gathered) -> Json: ...

    @abstractmethod
    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]: ...
