"""How families of models write the calls of tools: where a call begins, what is its name, where its arguments begin and end.

Each format is a value that reads text; it keeps nothing between two pieces of an answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass

from ._json_scan import Incomplete, Unlike, after_space, expect, read_string, skip_object, skip_value

_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _CALL_SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_FENCE_BEGIN, _FENCE_END = "```json", "```"
_KIND = re.compile(r"\s*([\w.-]*)\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The beginning of a call: its name, and the places where its arguments begin and, if that is known, end."""

    name: str
    start: int
    stop: int | None = None
    rest: int = 0  # where what belongs to the call goes on, if `stop` is known


class ToolFormat(ABC):
    """One way to write calls.

    Attributes:
        openers: what a call may begin with.
        punctuation: what stands between or behind calls, and is text elsewhere.
        marker: what ends a call's arguments though they are not closed; empty: nothing does.
    """

    openers: tuple[str, ...]
    punctuation: tuple[str, ...]
    marker: str

    @abstractmethod
    def head(self, text: str, names: Set[str]) -> Head:
        """The call that `text`, which begins with an opener, begins with.

        Raises:
            Unlike: it is none, or of a function that is not in `names`.
            Incomplete: it may become one.
        """

    @abstractmethod
    def tail(self, text: str) -> int:
        """How much of `text`, which stands behind the arguments of a call, still belongs to it.

        Raises:
            Unlike: nothing does.
            Incomplete: it is too early to tell; where the text ends so, all of it does.
        """


@dataclass(frozen=True)
class ObjectFormat(ToolFormat):
    """A call is an object with a name and arguments, between tags or not."""

    begin: str  # before the object
    marker: str
    openers: tuple[str, ...]
    arguments: tuple[str, ...]  # keys
    punctuation: tuple[str, ...] = ()

    def head(self, text: str, names: Set[str]) -> Head:
        at = after_space(text, len(self.begin) if text.startswith(self.begin) else 0)
        at = expect(text, at, "{")
        name: str | None = None
        arguments: tuple[int, int] | None = None
        while True:
            key, at = read_string(text, after_space(text, at))
            at = after_space(text, expect(text, after_space(text, at), ":"))
            if key in self.arguments and arguments is None:
                expect(text, at, "{")
                if name is not None:
                    return Head(name=name, start=at)
                # Some models write the arguments first: these wait for the name.
                arguments = at, (at := skip_object(text, at, self.marker))
            elif key == "name" and name is None:
                name, at = _name(text, at, names)
                if arguments is not None:
                    return Head(name=name, start=arguments[0], stop=arguments[1], rest=at)
            else:
                at = skip_value(text, at, self.marker)
            at = expect(text, after_space(text, at), ",")

    def tail(self, text: str) -> int:
        at = after_space(text, 0)
        if self.marker and text.startswith(self.marker, at):  # which has cut the arguments off
            return at + len(self.marker)
        if text.startswith(",", at):  # more keys
            at = skip_object(text, at, self.marker, depth=1)
        elif self.marker.startswith("<") and text.startswith("<", at):
            return expect(text, at, self.marker)
        else:
            at = expect(text, at, "}")
        try:
            return expect(text, after_space(text, at), self.marker)
        except Unlike:
            return at  # the closing tag is missing


@dataclass(frozen=True)
class MarkerFormat(ToolFormat):
    """DeepSeek's: markers around the name, and around the arguments, which may be a block of code."""

    openers: tuple[str, ...] = (_CALLS_BEGIN, _CALL_BEGIN)
    punctuation: tuple[str, ...] = (_CALLS_END,)
    marker: str = _CALL_END

    def head(self, text: str, names: Set[str]) -> Head:
        at = after_space(text, len(_CALLS_BEGIN)) if text.startswith(_CALLS_BEGIN) else 0
        kind = _KIND.match(text, expect(text, at, _CALL_BEGIN))
        assert kind is not None, "the pattern matches nothing too"
        at = after_space(text, expect(text, kind.end(), _CALL_SEPARATOR))
        name = kind.group(1)
        if at < len(text) and text[at] != "{":  # R1: that was the kind of tool; its name is a line of its own
            line, ended, _ = text[at:].partition("\n")
            name = line.strip()
            if not ended:
                raise Incomplete if any(one.startswith(name) for one in names) else Unlike
            at = after_space(text, at + len(line))
            if text[at : at + 1] in ("`", ""):
                at = after_space(text, expect(text, at, _FENCE_BEGIN))
        if at < len(text) and name not in names:
            raise Unlike
        expect(text, at, "{")
        return Head(name=name, start=at)

    def tail(self, text: str) -> int:
        at = after_space(text, 0)
        if text[at : at + 1] in ("`", ""):
            at = after_space(text, expect(text, at, _FENCE_END))
        return expect(text, at, _CALL_END)


def _name(text: str, at: int, names: Set[str]) -> tuple[str, int]:
    try:
        name, stop = read_string(text, at)
    except Incomplete:
        begun = text[at + 1 :]
        if "\\" not in begun and not any(one.startswith(begun) for one in names):
            raise Unlike from None  # a text that only looks like a call does not wait for its quotation mark
        raise
    if name not in names:
        raise Unlike
    return name, stop


FORMATS: dict[str, ToolFormat] = {
    "hermes": ObjectFormat("<tool_call>", "</tool_call>", ("<tool_call>",), ("arguments",)),
    "deepseek_r1": MarkerFormat(),
    "deepseek_v31": MarkerFormat(),
    "llama3": ObjectFormat("<|python_tag|>", "", ("<|python_tag|>", "{"), ("parameters", "arguments"), (";",)),
}
