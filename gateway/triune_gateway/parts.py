"""An answer as a row of parts, thinking, texts and calls of tools: what protocols without choices are made of. No I/O."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from triune_client import Chunk, ToolCallDelta

Kind = Literal["thinking", "text", "call"]


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}_{uuid.uuid4().hex}"


@dataclass(kw_only=True)
class Part:
    """A part of an answer, as it comes together.

    Attributes:
        whole: whether it has ended by itself; false: it was cut off.
        logprobs: of a text: the server's entries, one a token.
        untold: those of them that no piece has carried yet.
    """

    kind: Kind
    place: int  # among the answer's parts
    name: str = ""  # of a call
    call_id: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    untold: list[Any] = field(default_factory=list)
    whole: bool = True

    @property
    def text(self) -> str:
        """What has come of it: text, thinking or arguments."""
        return "".join(self.pieces)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens to a part: it begins, a piece of it comes, it ends."""

    what: Literal["begin", "piece", "end"]
    part: Part
    piece: str = ""


class Parts:
    """Follows one answer. At most one part is open, the last one; put end to end, its pieces are the whole part."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self._open: Part | None = None
        self._early: list[Any] = []  # log probabilities of tokens that have no text yet

    def take(self, chunk: Chunk, reason: str | None) -> Iterator[Step]:
        """What the next chunk does.

        Args:
            reason: why the answer has ended, as `shapes.finish_reason` says it; None while it has not.
        """
        if chunk.reasoning:
            yield from self._extend("thinking", chunk.reasoning)
        deltas = list(chunk.tool_call_deltas)
        while deltas and not deltas[0].name:  # they belong to the open call, so they come before the chunk's text
            yield from self._extend_call(deltas.pop(0))
        in_text = not (chunk.reasoning or chunk.tool_call_deltas)
        if chunk.text:
            yield from self._begin_text()
        if chunk.logprobs and (chunk.text or in_text):
            self._note(chunk.logprobs)
        if chunk.text:
            yield from self._extend("text", chunk.text)
        for delta in deltas:
            yield from self._extend_call(delta)
        if reason is not None:
            yield from self._finish(reason)

    def _begin_text(self) -> Iterator[Step]:
        yield from self._begin("text")
        assert self._open is not None
        self._open.logprobs += self._early
        self._open.untold += self._early
        self._early = []

    def _note(self, logprobs: tuple[Any, ...]) -> None:
        if self._open is None:
            self._early += logprobs
        elif self._open.kind == "text":
            self._open.logprobs += logprobs
            self._open.untold += logprobs

    def _extend(self, kind: Kind, piece: str) -> Iterator[Step]:
        yield from self._begin(kind)
        assert self._open is not None
        self._open.pieces.append(piece)
        yield Step(what="piece", part=self._open, piece=piece)
        self._open.untold = []

    def _extend_call(self, delta: ToolCallDelta) -> Iterator[Step]:
        if delta.name:
            yield from self._end()
            yield self._new(Part(kind="call", place=len(self.all), name=delta.name, call_id=delta.id))
        if delta.arguments:
            yield from self._extend("call", delta.arguments)

    def _begin(self, kind: Kind) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._end()
            yield self._new(Part(kind=kind, place=len(self.all)))

    def _new(self, part: Part) -> Step:
        self._open = part
        self.all.append(part)
        return Step(what="begin", part=part)

    def _end(self) -> Iterator[Step]:
        if self._open is not None:
            yield Step(what="end", part=self._open)
        self._open = None

    def _finish(self, reason: str) -> Iterator[Step]:
        if reason != "length" and not any(part.kind != "thinking" for part in self.all):
            yield from self._begin_text()  # an answer without words is an empty text
        if self._open is not None:
            self._open.whole = _is_json(self._open.text) if self._open.kind == "call" else reason != "length"
        yield from self._end()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
