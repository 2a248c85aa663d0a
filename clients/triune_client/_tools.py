"""Takes the calls of tools out of an answer's text, piece by piece. Knows how families of models write calls; no I/O.

A call is handed out when it is complete; what turns out not to be one stays text. White space next to a call belongs to it.
The pieces of an answer give the same text and calls however it was cut.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _CALL_SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_HERMES_BEGIN, _HERMES_END = "<tool_call>", "</tool_call>"
_LLAMA_TAG = "<|python_tag|>"
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = re.compile(r"[{}\[\]]")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A function that the model wants called; answer it with a message of the role "tool" and this id."""

    name: str
    arguments: str  # JSON of an object, as OpenAI's
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}", compare=False)

    @property
    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        parsed: dict[str, Any] = json.loads(self.arguments)
        return parsed

    def to_message(self) -> dict[str, Any]:
        """The call as an entry of `tool_calls` in a message of the assistant."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class _Found:
    """What a text begins with: so many characters that are a call, or its punctuation, or just text."""

    length: int
    call: ToolCall | None = None
    dropped: bool = False  # punctuation of calls


class ToolCallParser:
    """The calls in one answer."""

    def __init__(self, form: str, names: Collection[str]) -> None:
        """
        Args:
            form: the server's name of how the model writes calls; of one that is not known here, nothing is a call.
            names: the functions that may be called; a call of any other stays text.
        """
        self._names = frozenset(names)
        self._read, self._openers = {
            "hermes": (self._hermes, (_HERMES_BEGIN,)),
            "deepseek_r1": (self._deepseek, (_CALLS_BEGIN, _CALL_BEGIN, _CALLS_END)),
            "deepseek_v31": (self._deepseek, (_CALLS_BEGIN, _CALL_BEGIN, _CALLS_END)),
            "llama3": (self._llama, (_LLAMA_TAG, "{", ";")),
        }.get(form, (self._nothing, ()))
        self._held = ""  # what is not decided yet; begins with what may be a call
        self._space = ""  # white space that is text if text follows it
        self._after_call = False  # nothing but white space since the last call
        self._has_text = False  # something but white space since the last call, or since the beginning
        self._waits_for = ""  # nothing can be decided before this character comes

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Takes in the next piece of the answer; the text and the calls that are certain now."""
        self._held += text
        if self._waits_for and self._waits_for not in text:
            return "", []
        return self._advance(last=False)

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What was held back, when the answer has ended."""
        return self._advance(last=True)

    def _advance(self, *, last: bool) -> tuple[str, list[ToolCall]]:
        texts: list[str] = []
        calls: list[ToolCall] = []
        self._waits_for = ""
        while self._held:
            at, whole = self._next_opener(last=last)
            if at:
                texts.append(self._text(self._held[:at]))
                self._held = self._held[at:]
                continue
            found = self._read(self._held, last) if whole else None
            if found is None:
                break
            if found.call is not None:
                calls.append(found.call)
                self._space, self._after_call, self._has_text = "", True, False
            elif not found.dropped:
                texts.append(self._text(self._held[: found.length]))
            self._held = self._held[found.length :]
        if last and not self._after_call:
            texts.append(self._space)
        return "".join(texts), calls

    def _text(self, text: str) -> str:
        """`text`, with the white space before it and without that at its end, which waits for what follows."""
        whole = self._space + text
        bare = whole.rstrip()
        self._space = whole[len(bare) :]
        if bare:
            bare = bare.lstrip() if self._after_call else bare
            self._after_call, self._has_text = False, True
        return bare

    def _next_opener(self, *, last: bool) -> tuple[int, bool]:
        """How many characters are before the next place where a call may begin, and whether its opener is complete."""
        places = [(len(self._held), True)]
        for opener in self._openers:
            at = self._held.find(opener)
            if len(opener) == 1:  # Llama's calls without a tag are whole answers
                fresh = self._after_call if opener == ";" else not self._has_text
                if at >= 0 and fresh and not self._held[:at].strip():
                    places.append((at, True))
            elif at >= 0:
                places.append((at, True))
            elif not last:
                places += [(len(self._held) - n, False) for n in range(1, len(opener)) if self._held.endswith(opener[:n])]
        return min(places)

    def _hermes(self, text: str, last: bool) -> _Found | None:
        body_at = len(_HERMES_BEGIN)
        value, stop = self._object(text, body_at)
        if value is None:
            return _Found(body_at) if last or stop else None
        rest = text[stop:].lstrip()
        if not last and rest != _HERMES_END and _HERMES_END.startswith(rest):
            return None
        if rest and not rest.startswith(_HERMES_END):  # at the end of an answer, the closing tag may be missing
            return _Found(body_at)
        length = len(text) - len(rest) + (len(_HERMES_END) if rest else 0)
        return self._call(length, body_at, value.get("name"), value.get("arguments"))

    def _deepseek(self, text: str, last: bool) -> _Found | None:
        if text.startswith(_CALLS_END):
            return _Found(len(_CALLS_END), dropped=self._after_call)
        at = _after_space(text, len(_CALLS_BEGIN)) if text.startswith(_CALLS_BEGIN) else 0
        if not text.startswith(_CALL_BEGIN, at):
            return None if not last and _CALL_BEGIN.startswith(text[at:]) else _Found(len(_CALLS_BEGIN))
        at += len(_CALL_BEGIN)
        end = text.find(_CALL_END, at)
        if end < 0:
            self._waits_for = _CALL_END[-1]
            return _Found(at) if last else None
        name, _, body = text[at:end].partition(_CALL_SEPARATOR)
        if not body.lstrip().startswith("{"):  # R1: the kind of tool, then its name on a line of its own
            name, _, body = body.strip().partition("\n")
        arguments = body.strip().removeprefix("```json").removesuffix("```").strip()
        value, stop = _json_object(arguments, 0)
        return self._call(end + len(_CALL_END), at, name.strip(), value if stop == len(arguments) else None)

    def _llama(self, text: str, last: bool) -> _Found | None:
        if text[0] == ";":
            return _Found(1, dropped=True)
        begin = len(_LLAMA_TAG) if text.startswith(_LLAMA_TAG) else 0
        value, stop = self._object(text, begin)
        if value is None:
            return _Found(max(begin, 1)) if last or stop else None
        return self._call(stop, max(begin, 1), value.get("name"), value.get("parameters", value.get("arguments")))

    def _nothing(self, text: str, last: bool) -> _Found | None:
        return _Found(len(text))

    def _object(self, text: str, at: int) -> tuple[dict[str, Any] | None, int]:
        at = _after_space(text, at)
        value, stop = _json_object(text, at)
        if value is None and not stop and at < len(text):
            self._waits_for = "}"
        return value, stop

    def _call(self, length: int, opening: int, name: object, arguments: object) -> _Found:
        """The call, if it is one; else its `opening` characters are text, and so is what follows unless it opens another."""
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            return _Found(opening)
        return _Found(length, ToolCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False)))


def _after_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


def _json_object(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The object that begins at `at` and where it ends; (None, 0) while it is not complete, (None, 1) where there is none."""
    try:
        value, stop = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        return (None, 0) if _is_open(text, at) else (None, 1)
    return (value, stop) if isinstance(value, dict) else (None, 1)


def _is_open(text: str, at: int) -> bool:
    """Whether what begins at `at` may become an object: its braces are not closed yet."""
    if at >= len(text):
        return True
    if text[at] != "{":
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text[at:])):
        depth += 1 if bracket in "{[" else -1
        if not depth:
            return False
    return True
