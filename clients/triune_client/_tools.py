"""Takes the calls of tools out of an answer's text, piece by piece. No I/O.

A call begins when its name and the first bracket of its arguments are there; from then on it is one, and its arguments are
handed out as they come, just as the model wrote them. What turns out not to be a call stays text. White space next to a call
belongs to it. The pieces of an answer give the same text and calls however it was cut.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ._json_scan import Brackets, Incomplete, Unlike
from ._tool_formats import FORMATS, Head


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A function that the model wants called; answer it with a message of the role "tool" and this id."""

    name: str
    arguments: str  # JSON of an object as the model wrote it, which may be malformed or cut off
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}", compare=False)

    @property
    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            ValueError: the model wrote something else than an object.
        """
        parsed = json.loads(self.arguments)
        if not isinstance(parsed, dict):
            raise ValueError(f"the arguments of {self.name} are not an object: {self.arguments[:80]}")
        return parsed

    def to_message(self) -> dict[str, Any]:
        """The call as an entry of `tool_calls` in a message of the assistant."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallDelta:
    """A piece of a call: first its name and id, then its arguments, which concatenated are those of the whole call."""

    index: int  # of the call in the answer
    name: str = ""  # of the first piece
    id: str = ""  # of the first piece
    arguments: str = ""


@dataclass(kw_only=True, slots=True)
class Found:
    """What is certain with the next piece of an answer: text, pieces of calls, and the calls that have ended."""

    text: str = ""
    deltas: list[ToolCallDelta] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)


@dataclass(kw_only=True)
class _Open:
    """The call whose arguments are being read."""

    name: str
    brackets: Brackets
    pieces: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


class ToolCallParser:
    """The calls in one answer."""

    def __init__(self, form: str, names: Collection[str]) -> None:
        """
        Args:
            form: the server's name of how the model writes calls; of one that is not known here, nothing is a call.
            names: the functions that may be called; a call of any other stays text.
        """
        self.cut_off = False  # whether the answer ended inside the arguments of a call
        self._names = frozenset(names)
        self._form = FORMATS.get(form)
        self._begun = 0  # calls so far
        self._open: _Open | None = None
        self._closing = False  # the arguments have ended, what belongs to the call may not have
        self._held = ""  # what is not decided yet
        self._space = ""  # white space that is text if text follows it
        self._after_call = False  # nothing but white space since the last call
        self._has_text = False  # something but white space since the last call, or since the beginning
        self._waits_for = ""  # nothing can be decided before one of these characters comes; empty: any may decide

    def push(self, text: str) -> Found:
        """Takes in the next piece of the answer; what is certain now."""
        self._held += text
        if self._waits_for and not any(character in text for character in self._waits_for):
            return Found()
        return self._advance(last=False)

    def finish(self) -> Found:
        """What was held back, when the answer has ended; a call that has not ended is there as far as it came."""
        found = self._advance(last=True)
        if self._open is not None:
            self.cut_off = True
            self._end_call(found)
        if not self._after_call:
            found.text += self._space
        return found

    def _advance(self, *, last: bool) -> Found:
        found = Found()
        self._waits_for = ""
        while self._held:
            if self._open is not None:
                go_on = self._read_arguments(self._open, found, last=last)
            elif self._closing:
                go_on = self._read_tail(last=last)
            else:
                go_on = self._read_text(found, last=last)
            if not go_on:
                break
        return found

    def _read_text(self, found: Found, *, last: bool) -> bool:
        at, opener = self._next_opener(last=last)
        if at:
            found.text += self._text(self._take(at))
        elif opener is None:
            return False
        elif self._form is not None and opener in self._form.punctuation:
            punctuation = self._take(len(opener))
            found.text += "" if self._after_call else self._text(punctuation)
        else:
            return self._read_head(opener, found, last=last)
        return True

    def _read_head(self, opener: str, found: Found, *, last: bool) -> bool:
        assert self._form is not None, "without a format there are no openers"
        try:
            head = self._form.head(self._held, self._names)
        except Incomplete as wait:
            if not last:
                self._waits_for = wait.until
                return False
        except Unlike:
            pass
        else:
            self._begin_call(head, found)
            return True
        found.text += self._text(self._take(len(opener)))
        return True

    def _begin_call(self, head: Head, found: Found) -> None:
        assert self._form is not None, "without a format there are no calls"
        self._open = _Open(name=head.name, brackets=Brackets(self._form.marker))
        self._begun += 1
        self._space, self._after_call, self._has_text = "", True, False
        found.deltas.append(ToolCallDelta(index=self._begun - 1, name=head.name, id=self._open.id))
        if head.stop is None:
            self._take(head.start)
            return
        rest = self._held[head.rest :]
        self._argue(self._open, self._held[head.start : head.stop], found)
        self._end_call(found)
        self._held = rest

    def _read_arguments(self, call: _Open, found: Found, *, last: bool) -> bool:
        stop, state = call.brackets.scan(self._held, last=last)
        self._argue(call, self._take(stop), found)
        if state == "open":
            return False
        self._end_call(found)
        return True

    def _read_tail(self, *, last: bool) -> bool:
        assert self._form is not None, "without a format there are no calls"
        try:
            length = self._form.tail(self._held)
        except Unlike:
            length = 0
        except Incomplete as wait:
            if not last:
                self._waits_for = wait.until
                return False
            length = 0 if wait.until else len(self._held)
        self._take(length)
        self._closing = False
        return True

    def _argue(self, call: _Open, piece: str, found: Found) -> None:
        if piece:
            call.pieces.append(piece)
            found.deltas.append(ToolCallDelta(index=self._begun - 1, arguments=piece))

    def _end_call(self, found: Found) -> None:
        assert self._open is not None, "a call ends that has not begun"
        found.calls.append(ToolCall(name=self._open.name, arguments="".join(self._open.pieces), id=self._open.id))
        self._open, self._closing = None, True

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def _text(self, text: str) -> str:
        """`text`, with the white space before it and without that at its end, which waits for what follows."""
        whole = self._space + text
        bare = whole.rstrip()
        self._space = whole[len(bare) :]
        if bare:
            bare = bare.lstrip() if self._after_call else bare
            self._after_call, self._has_text = False, True
        return bare

    def _next_opener(self, *, last: bool) -> tuple[int, str | None]:
        """How many characters are before the next place where a call may begin, and its opener; None if that is incomplete."""
        places: list[tuple[int, str | None]] = [(len(self._held), None)]
        for opener in (*self._form.openers, *self._form.punctuation) if self._form else ():
            at = self._held.find(opener)
            if len(opener) == 1:  # Llama's calls without a tag are whole answers
                fresh = self._after_call if opener == ";" else not self._has_text
                if at >= 0 and fresh and not self._held[:at].strip():
                    places.append((at, opener))
            elif at >= 0:
                places.append((at, opener))
            elif not last:
                places += [(len(self._held) - n, None) for n in range(1, len(opener)) if self._held.endswith(opener[:n])]
        return min(places, key=lambda place: (place[0], place[1] is None))
